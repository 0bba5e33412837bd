"""The open inference protocol: embeddings, in JSON and behind it; errors as clients read them."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from emoji_pictures import PICTURES, as_base64, as_uri

PATH = "/v2/models/emoji/infer"
TEXTS = ["red apple", "dog face", "é"]


def tensor(name, data, shape=None, **more):
    return {"name": name, "shape": shape or [len(data)], "datatype": "BYTES", "data": data, **more}


def binary(elements):
    return b"".join(struct.pack("<I", len(each)) + each for each in elements)


def post(client, asked, behind=b"", path=PATH):
    text = json.dumps(asked).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))} if behind else {}
    return client.post(path, content=text + behind, headers=headers)


def test_texts_in_json(client, scorer):
    answer = post(client, {"id": "7", "inputs": [tensor("text", TEXTS, [3, 1])]}).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("emoji", "1", "7")
    (found,) = answer["outputs"]
    assert (found["name"], found["datatype"]) == ("text_embedding", "FP32")
    expected = scorer.embed_texts(TEXTS)
    assert found["shape"] == list(expected.shape)
    np.testing.assert_allclose(np.reshape(found["data"], found["shape"]), expected, atol=1e-5)


@pytest.mark.parametrize("write", [as_base64, as_uri])
def test_images_in_json(client, scorer, write):
    files = PICTURES[:3]
    asked = {"inputs": [tensor("image", [[write(each)] for each in files], [3, 1])]}
    (found,) = post(client, asked).json()["outputs"]
    np.testing.assert_allclose(
        np.reshape(found["data"], found["shape"]), scorer.embed_images(files), atol=1e-5
    )


@pytest.mark.parametrize("write", [Path.read_bytes, lambda file: as_base64(file).encode()])
def test_both_behind_the_json(client, scorer, write):
    files = PICTURES[:2]
    images, texts = binary(map(write, files)), binary(text.encode() for text in TEXTS)
    asked = {
        "inputs": [
            {"name": name, "shape": [count], "datatype": "BYTES",
             "parameters": {"binary_data_size": len(data)}}
            for name, count, data in (("text", 3, texts), ("image", 2, images))
        ],
        "parameters": {"binary_data_output": True},
    }  # fmt: skip
    answer = post(client, asked, texts + images)
    size = int(answer.headers["Inference-Header-Content-Length"])
    outputs = json.loads(answer.content[:size])["outputs"]
    assert [each["name"] for each in outputs] == ["text_embedding", "image_embedding"]
    rest = answer.content[size:]
    for output, expected in zip(
        outputs, [scorer.embed_texts(TEXTS), scorer.embed_images(files)], strict=True
    ):
        bytes_ = output["parameters"]["binary_data_size"]
        found = np.frombuffer(rest[:bytes_], "<f4").reshape(output["shape"])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        rest = rest[bytes_:]
    assert rest == b""


def test_one_output_of_two(client):
    asked = {
        "inputs": [tensor("text", ["a"]), tensor("image", [as_uri(PICTURES[0])])],
        "outputs": [{"name": "image_embedding", "parameters": {"binary_data": False}}],
        "parameters": {"binary_data_output": True},
    }
    (found,) = post(client, asked, path="/v2/models/emoji/versions/1/infer").json()["outputs"]
    assert found["name"] == "image_embedding"
    assert len(found["data"]) == found["shape"][1]


def test_metadata(client, scorer):
    width = scorer.width()
    found = client.get("/v2/models/emoji").json()
    assert found["inputs"][0] == {"name": "image", "datatype": "BYTES", "shape": [-1]}
    assert found["outputs"][1] == {
        "name": "text_embedding", "datatype": "FP32", "shape": [-1, width]
    }  # fmt: skip
    assert client.get("/v2/models/emoji/versions/1").json() == found
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/emoji/ready", "/v2/models/emoji/versions/1/ready"):
        assert client.get(path).json() == {"ready": True, "name": "emoji"}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/v2/models/emojy", "no model is called 'emojy'; did you mean emoji?"),
        ("/v2/models/emojy/ready", "no model is called 'emojy'"),
        ("/v2/models/emoji/versions/2", "emoji has version 1, and no '2'"),
    ],
)
def test_a_model_that_is_none(client, path, why):
    answer = client.get(path)
    assert answer.status_code == 404
    assert why in answer.json()["error"]


TEXT = tensor("text", ["a"])


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({}, "the field 'inputs' is missing"),
        ({"inputs": []}, "inputs: the list is empty; give image, text or both"),
        ({"inputs": [tensor("txt", ["a"])]}, "inputs[0]: there is no input 'txt'; there are image"),
        ({"inputs": [TEXT, TEXT]}, "inputs[1]: the input 'text' is given twice"),
        ({"inputs": [TEXT | {"datatype": "FP32"}]}, "must be of datatype BYTES, got 'FP32'"),
        ({"inputs": [TEXT | {"shape": [2]}]}, "'text' has shape [2] and 1 elements"),
        ({"inputs": [TEXT | {"shape": [-1]}]}, "inputs[0].shape[0]: expected `int` >= 0"),
        ({"inputs": [TEXT | {"shape": [1] * 9}]}, "inputs[0].shape: expected `array` of length"),
        ({"inputs": [TEXT | {"data": [1]}]}, "inputs[0]: expected strings in data"),
        ({"inputs": [TEXT | {"data": [], "shape": [0]}]}, "the input 'text' has no element"),
        ({"inputs": [TEXT | {"data": [""]}]}, "inputs[0].data[0]: the text is empty"),
        ({"inputs": [TEXT | {"data": None}]}, "give data, or the parameter binary_data_size"),
        ({"inputs": [TEXT | {"parameters": {"binary_data_size": 1}}]}, "give data, or"),
        ({"inputs": [tensor("image", ["!"])]}, "inputs[0].data[0]: expected a data URI"),
        ({"inputs": [TEXT], "outputs": [{"name": "logits"}]}, "outputs[0]: there is no output"),
        ({"inputs": [TEXT], "id": 7}, "id: expected `str | null`, got `int`"),
    ],
)
def test_bad_json(client, asked, why):
    answer = post(client, asked)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert why in answer.json()["error"]


@pytest.mark.parametrize(
    ("size", "behind", "why"),
    [
        (5, b"\x01\0\0\0", "must be at most the 4 bytes that are left, got 5"),
        (-1, b"\x01\0\0\0", "must be at most the 4 bytes that are left, got -1"),
        ("5", b"\x01\0\0\0a", "must be at most the 5 bytes"),
        (5, b"\x01\0\0\0ab", "1 bytes of the body belong to no input"),
        (5, b"\x02\0\0\0a", "element 0 of the BYTES tensor is cut off"),
        (7, b"\x01\0\0\0ab\0", "element 1 of the BYTES tensor is cut off"),
        (5, b"\x01\0\0\0\xff", "inputs[0].data[0]: the text is no UTF-8"),
        (4 * 20_001, bytes(4 * 20_001), "inputs[0]: more than 20,000 elements"),
    ],
)
def test_bad_bytes(client, size, behind, why):
    asked = {"name": "text", "shape": [1], "datatype": "BYTES"}
    asked["parameters"] = {"binary_data_size": size}
    answer = post(client, {"inputs": [asked]}, behind)
    assert answer.status_code == 400
    assert why in answer.json()["error"]


@pytest.mark.parametrize("size", ["", "x", "-1", "999999", "1.5"])
def test_a_bad_size_of_the_json(client, size):
    text = json.dumps({"inputs": [TEXT]})
    answer = client.post(PATH, content=text, headers={"Inference-Header-Content-Length": size})
    assert answer.status_code == 400
    assert "Inference-Header-Content-Length: expected the bytes" in answer.json()["error"]
