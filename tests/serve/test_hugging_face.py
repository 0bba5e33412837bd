"""Hugging Face's payload: scores of the pipeline, errors as its clients read them."""

import numpy as np
import pytest
from emoji_pictures import PICTURES, as_base64, as_uri

LABELS = ["red apple", "dog face", "blue car"]


def payload(inputs=None, **parameters):
    parameters = {"candidate_labels": LABELS, **parameters}
    return {
        "inputs": as_base64(PICTURES[0]) if inputs is None else inputs,
        "parameters": parameters,
    }


@pytest.mark.parametrize("path", ["/", "/models/emoji"])
@pytest.mark.parametrize("template", [None, "a {}"])
def test_scores(client, scorer, path, template):
    asked = payload(**({} if template is None else {"hypothesis_template": template}))
    answer = client.post(path, json=asked)
    assert answer.status_code == 200
    found = answer.json()
    template = template or "This is a photo of {}."
    expected = scorer.score(PICTURES[:1], LABELS, templates=[template])
    by_label = dict(zip(LABELS, expected.probabilities[0], strict=True))
    assert [each["label"] for each in found] == sorted(LABELS, key=by_label.get, reverse=True)
    np.testing.assert_allclose(
        [each["score"] for each in found], sorted(by_label.values(), reverse=True), atol=1e-5
    )


def test_options_and_data_uris(client):
    asked = payload(as_uri(PICTURES[0])) | {"options": {"wait_for_model": True}}
    assert client.post("/", json=asked).json() == client.post("/", json=payload()).json()


@pytest.mark.parametrize(
    ("path", "asked", "status", "why"),
    [
        ("/models/emojy", payload(), 404, "no model is called 'emojy'; did you mean emoji?"),
        ("/", {"inputs": "aGk="}, 400, "the field 'parameters' is missing"),
        ("/", payload(candidate_labels=[]), 400, "the list of labels is empty"),
        ("/", payload(candidate_labels="a, b"), 400, "parameters.candidate_labels: expected"),
        ("/", payload(hypothesis_template="a"), 400, "must hold {} once"),
        ("/", payload("!"), 400, "inputs: expected a data URI, base64 or a URL"),
        ("/", payload("aGVsbG8="), 400, "inputs: "),
        ("/", payload() | {"input": 1}, 400, "there is no field 'input'; did you mean inputs?"),
    ],
)
def test_bad_input(client, path, asked, status, why):
    answer = client.post(path, json=asked)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert why in answer.json()["error"]
