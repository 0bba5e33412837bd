import base64

import numpy as np
import pytest
from emoji_pictures import PICTURES, as_base64, as_uri

TEXTS = ["a red heart", "a juice box"]


def rows(answer):
    assert answer.status_code == 200, answer.text
    return np.float32([each["embedding"] for each in answer.json()["data"]])


def test_texts(client, scorer):
    answer = client.post("/v1/embeddings", json={"input": TEXTS})
    np.testing.assert_allclose(rows(answer), scorer.embed_texts(TEXTS), atol=1e-6)
    ids = scorer.tokenizer.encode(TEXTS)
    tokens = int((ids != scorer.tokenizer.profile.pad).sum())
    assert answer.json()["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_base64_is_the_same_numbers(client):
    floats = rows(client.post("/v1/embeddings", json={"input": TEXTS}))
    answer = client.post("/v1/embeddings", json={"input": TEXTS, "encoding_format": "base64"})
    found = [base64.b64decode(each["embedding"]) for each in answer.json()["data"]]
    np.testing.assert_array_equal([np.frombuffer(each, "<f4") for each in found], floats)


@pytest.mark.parametrize(
    "asked",
    [
        {"input": as_uri(PICTURES[0])},
        {"input": as_base64(PICTURES[0]), "modality": "image"},
        {"input": [{"image": as_base64(PICTURES[0])}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": as_uri(PICTURES[0])}}],
                }
            ]
        },
    ],
    ids=["data URI", "modality", "jina", "messages"],
)
def test_every_way_to_send_an_image(client, scorer, asked):
    found = rows(client.post("/v1/embeddings", json=asked))
    np.testing.assert_allclose(found, scorer.embed_images(PICTURES[:1]), atol=1e-6)


def test_texts_and_images_keep_their_order(client, scorer):
    asked = {"input": [{"text": TEXTS[0]}, {"image": as_uri(PICTURES[1])}, TEXTS[1]]}
    found = rows(client.post("/v1/embeddings", json=asked))
    ztxt, zimg = scorer.embed_texts(TEXTS), scorer.embed_images(PICTURES[1:2])
    np.testing.assert_allclose(found, np.stack([ztxt[0], zimg[0], ztxt[1]]), atol=1e-6)


def test_token_ids_with_and_without_padding(client, scorer):
    whole = scorer.tokenizer.encode(TEXTS[:1])[0]
    eos = scorer.tokenizer.profile.eos
    short = whole[: list(whole).index(eos) + 1]
    for given in (whole.tolist(), short.tolist(), [short.tolist()]):
        found = rows(client.post("/v1/embeddings", json={"input": given}))
        np.testing.assert_allclose(found, scorer.embed_texts(TEXTS[:1]), atol=1e-6)


def test_texts_that_are_cut_are_counted(client):
    answer = client.post("/v1/embeddings", json={"input": ["word " * 100, "a"]})
    assert answer.json()["usage"]["cut_texts"] == 1


@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        ({"input": []}, "input", "empty"),
        ({"input": ""}, "input", "empty"),
        ({"input": ["a", ""]}, "input[1]", "empty"),
        ({"input": [["a"]]}, "input[0][0]", "expected `int`"),
        ({"input": [100_000, 1]}, "input", "tiktoken"),
        ({"input": [-1, 1]}, "input", "no token id"),
        ({"input": [5]}, "input", "end-of-text"),
        ({"input": [1] * 21}, "input", "1 to 20"),
        ({"input": [1, "a"]}, "input[0]", "mixed"),
        ({"input": [{}]}, "input[0]", "one of them"),
        ({"input": "a", "dimensions": 64}, "dimensions", "cannot be shortened"),
        ({"input": "a", "normalized": False}, "normalized", "unit norm"),
        ({"input": "a", "padding": "do_not_pad"}, "padding", "max_length"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "int8"),
        ({}, "input", "missing"),
        ({"messages": []}, "messages", "0 parts"),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, "messages", "2 parts"),
    ],
)
def test_what_is_wrong_is_named(client, asked, param, said):
    answer = client.post("/v1/embeddings", json=asked)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert said in error["message"]
    assert error["param"] == param
