import numpy as np
import pytest
from emoji_pictures import PICTURES, as_base64, as_uri

LABELS = ["a juice box", "a brown circle", "a vampire"]


def scores_of(answer, index=0):
    assert answer.status_code == 200, answer.text
    return {each["label"]: each for each in answer.json()["data"][index]["scores"]}


def wrong(answer, status, param):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert "\n" not in error["message"]
    return error["message"]


def test_scores_are_those_of_a_scorer(client, scorer):
    images = [as_uri(path) for path in PICTURES]
    answer = client.post("/v1/classify", json={"input": images, "labels": LABELS})
    expected = scorer.score(PICTURES, LABELS)
    for i, row in enumerate(expected.logits):
        found = scores_of(answer, i)
        np.testing.assert_allclose([found[x]["logit"] for x in LABELS], row, atol=1e-5)
        by_score = [found[label]["score"] for label in LABELS]
        np.testing.assert_allclose(by_score, expected.probabilities[i], rtol=1e-4)
    usage = answer.json()["usage"]
    assert (usage["images"], usage["texts"]) == (len(PICTURES), 3)


def test_labels_are_ranked_and_the_best_can_be_asked_for(client):
    asked = {"image": as_base64(PICTURES[5]), "labels": LABELS}
    everything = client.post("/v1/classify", json=asked).json()["data"][0]["scores"]
    assert [each["score"] for each in everything] == sorted(
        (each["score"] for each in everything), reverse=True
    )
    assert everything[0]["label"] == "a brown circle"
    top = client.post("/v1/classify", json=asked | {"top": 1}).json()["data"][0]["scores"]
    assert top == everything[:1]


def test_templates_are_averaged(client, scorer):
    templates = ["a picture of {}", "{}"]
    asked = {"input": as_uri(PICTURES[0]), "labels": LABELS, "templates": templates}
    found = scores_of(client.post("/v1/classify", json=asked))
    expected = scorer.score(PICTURES[:1], LABELS, templates).logits[0]
    np.testing.assert_allclose([found[x]["logit"] for x in LABELS], expected, atol=1e-5)


def test_labels_are_embedded_once(client):
    asked = {"input": as_uri(PICTURES[0]), "labels": ["never asked for before"]}
    found = [
        client.post("/v1/classify", json=asked).json()["usage"]["label_cache"] for _ in range(2)
    ]
    assert found == ["miss", "hit"]


def best_of(each):
    (best,) = each["scores"]
    return each["index"], best["label"], best["logit"]


def test_a_form_with_files(client):
    files = [("file", (path.name, path.read_bytes())) for path in PICTURES[:2]]
    answer = client.post("/v1/classify", files=files, data={"labels": LABELS, "top": "1"})
    sent = {"input": [as_uri(path) for path in PICTURES[:2]], "labels": LABELS, "top": 1}
    expected = client.post("/v1/classify", json=sent).json()["data"]
    assert [best_of(each) for each in answer.json()["data"]] == [
        # Two images are one batch or two, which round differently.
        (index, label, pytest.approx(logit, abs=1e-5))
        for index, label, logit in map(best_of, expected)
    ]


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"labels": []}, "labels", "empty"),
        ({"labels": ["a", " "]}, "labels", "labels[1] is empty"),
        ({"labels": ["a", 3]}, "labels[1]", "expected `str`, got `int`"),
        ({"labels": "a dog"}, "labels", "expected `array`, got `str`"),
        ({"labels": [str(i) for i in range(10_001)]}, "labels", "at most 10,000"),
        ({"templates": ["a photo"]}, "templates", "must hold {} once"),
        ({"top": 0}, "top", ">= 1"),
        ({"input": []}, "input", "the list is empty"),
        ({"input": None}, "input", "missing"),
        ({"image": "x"}, "image", "not both"),
        ({"input": "data:text/plain;base64,aGVsbG8="}, "input", "one of text/plain"),
        ({"input": "data:image/png,hello"}, "input", ";base64"),
        ({"input": "aGVsbG8"}, "input", "its end is missing"),
        ({"input": "kein Bild"}, "input", "none"),
        ({"input": ["aGVsbG8="]}, "input[0]", "not an image in a known format"),
        ({"input": "https://example.org/a.png"}, "input", "fetches no URLs"),
        ({"input": ["aGVsbG8="] * 65}, "input", "at most 64"),
        ({"labls": ["a"]}, "labls", "did you mean labels?"),
    ],
)
def test_what_is_wrong_is_named(client, change, param, said):
    asked = {"input": as_uri(PICTURES[0]), "labels": ["a dog"]} | change
    asked = {name: value for name, value in asked.items() if value is not None}
    assert said in wrong(client.post("/v1/classify", json=asked), 400, param)


def test_a_model_that_is_not_served(client):
    asked = {"model": "emojy", "input": as_uri(PICTURES[0]), "labels": ["a dog"]}
    answer = client.post("/v1/classify", json=asked)
    assert "did you mean emoji?" in wrong(answer, 404, "model")
    assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "it is empty"),
        (b"{", "no JSON"),
        (b"\xff", "no UTF-8"),
        (b"[]", "expected `object`, got `array`"),
        (b'{"labels": ["a"], "labels": ["b"]}', "'labels' twice"),
        (b'{"top": NaN}', "NaN"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{}", "'labels' is missing"),
    ],
)
def test_bodies_that_are_no_request(client, body, said):
    answer = client.post("/v1/classify", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_a_body_of_another_type(client):
    answer = client.post("/v1/classify", content=b"x", headers={"content-type": "image/png"})
    assert answer.status_code == 415
    assert "multipart/form-data" in answer.json()["error"]["message"]
