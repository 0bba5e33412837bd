import numpy as np
import pytest
from emoji_pictures import PICTURES, as_uri

import siglip_jax
from siglip_jax.calibration import Calibration
from siglip_jax.calibration.identity import Identity, identity_of
from siglip_jax.serve import create_app

LABELS = ("a brown circle", "a vampire", "a juice box")


@pytest.fixture(scope="module")
def calibration():
    return Calibration(
        identity=identity_of(siglip_jax.load("siglip_emoji")), labels=LABELS, method="bias", n=9,
        bias=np.array([-2.0, -1.0, 0.5]), rules={"f1": np.array([0.5, np.inf, 0.1])}, rule="f1",
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(start, calibration):
    with start(calibrations=[calibration], batch_size=1, text_batch_size=1) as client:
        yield client


def asked(**more):
    return {"input": as_uri(PICTURES[5]), "labels": list(LABELS)} | more


@pytest.mark.parametrize("labels", [LABELS, LABELS[::-1]])
@pytest.mark.parametrize("how", [True, "auto"])
def test_calibrated_probabilities_in_any_order_of_labels(served, scorer, calibration, labels, how):
    answer = served.post("/v1/classify", json=asked(calibration=how, labels=list(labels))).json()
    assert answer["calibration"] == "bias"
    found = {each["label"]: each for each in answer["data"][0]["scores"]}
    expected = scorer.score(PICTURES[5:6], LABELS).calibrated(calibration)
    by_label = dict(zip(LABELS, expected.probabilities[0], strict=True))
    for label in LABELS:
        assert found[label]["score"] == pytest.approx(by_label[label], rel=1e-4)
    accepted = {hit.label for hit in expected.accepted()[0]}
    assert {label for label in LABELS if found[label]["accepted"]} == accepted
    assert found["a brown circle"]["threshold"] == 0.5
    assert "threshold" not in found["a vampire"]  # never accepted


def test_not_asked_for_they_are_the_models_own(served, scorer):
    answer = served.post("/v1/classify", json=asked()).json()
    assert answer["calibration"] is None
    best = answer["data"][0]["scores"][0]
    assert best["score"] == pytest.approx(
        scorer.score(PICTURES[5:6], LABELS).probabilities.max(), rel=1e-4
    )
    assert "accepted" not in best


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"labels": ["a brown circle"]}, "is missing here"),
        ({"labels": [*LABELS, "a cat"]}, "'a cat' is none of its own"),
        ({"templates": ["a photo of {}"]}, "other templates"),
    ],
)
def test_of_other_labels_or_templates_there_is_none(served, more, said):
    answer = served.post("/v1/classify", json=asked(calibration=True, **more))
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "calibration"
    auto = served.post("/v1/classify", json=asked(calibration="auto", **more)).json()
    assert auto["calibration"] is None


def test_the_model_lists_them(served):
    (found,) = served.get("/v1/models").json()["data"][0]["calibrations"]
    assert found == {
        "labels": list(LABELS), "templates": ["{}"], "method": "bias", "rule": "f1"
    }  # fmt: skip


def test_a_service_without_any(client):
    answer = client.post("/v1/classify", json=asked(calibration=True))
    assert "has no calibration" in answer.json()["error"]["message"]


def test_one_of_another_model_is_refused_at_the_start(calibration):
    other = Calibration(
        identity=Identity("other", "tensors-sha256:0", calibration.identity.profile),
        labels=LABELS, method="expect", n=9,
    )  # fmt: skip
    with pytest.raises(ValueError, match="the calibration is of other, and siglip_emoji"):
        create_app({"emoji": siglip_jax.load("siglip_emoji")}, calibrations=[other])
