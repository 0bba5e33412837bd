"""`Calibration`: what it applies, what it refuses, its file."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from siglip_jax.calibration import Calibration, Identity
from siglip_jax.preprocessing.profiles import ADDED
from siglip_jax.scoring import Scores

PROFILE = {"name": "big_vision", "image": {"res": 224, "max_pixels": 5}, "text": {"length": 64}}
MODEL = Identity("m", "tensors-sha256:1", PROFILE)
LABELS = ("cat", "dog", "donut")


def made(**fields):
    return Calibration(
        **{"identity": MODEL, "labels": LABELS, "method": "platt", "n": 10, "scale": 0.5}
        | {"bias": np.array([1.0, 2.0, 3.0])}
        | fields
    )


def curved():
    curve = np.array([-2.0, 0.0, 1.0]), np.array([0.0, 0.5, 1.0])
    return made(method="isotonic", scale=1.0, bias=np.zeros(3), curve=curve)


LOGITS = np.array([[-3.0, 0.0, 2.0], [np.nan, -1.0, 0.5]])


def test_probabilities_of_scale_and_bias():
    got = made().probabilities(LOGITS)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-(0.5 * LOGITS + [1, 2, 3]))), rtol=1e-12)
    assert np.isnan(got[1, 0]) and not np.isnan(got[1, 1:]).any()


def test_probabilities_of_a_curve_and_of_a_softmax():
    got = curved().probabilities(LOGITS)
    np.testing.assert_allclose(got[0], [0, 0.5, 1])
    np.testing.assert_allclose(got[1, 1:], [0.25, 0.75])
    soft = made(method="softmax", scale=1.0, bias=np.zeros(3)).probabilities(LOGITS[:1])
    np.testing.assert_allclose(soft.sum(), 1)


def test_a_few_columns_are_those_of_all():
    columns = np.array([[2, 0], [1, 2]])
    some = np.take_along_axis(LOGITS, columns, axis=1)
    whole = np.take_along_axis(made().probabilities(LOGITS), columns, axis=1)
    np.testing.assert_array_equal(made().probabilities(some, columns), whole)
    with pytest.raises(ValueError, match="softmax needs the logits of all"):
        made(method="softmax").probabilities(some, columns)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "plat"}, "did you mean platt"),
        ({"labels": ()}, "at least one label"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": float("nan")}, "scale must be positive"),
        ({"bias": np.array([0.0, np.inf, 0.0])}, "finite"),
        ({"method": "isotonic"}, "a curve belongs"),
        ({"curve": (np.zeros(1), np.zeros(1))}, "a curve belongs"),
        ({"method": "isotonic", "curve": (np.array([1.0, 0.0]), np.zeros(2))}, "must be of logits"),
        ({"rules": {"f1": np.zeros(2)}}, "thresholds of f1"),
        ({"rules": {"f1": np.array([0.1, np.nan, 0.1])}}, "thresholds of f1"),
        ({"rule": "f1"}, "no thresholds of f1"),
    ],
)
def test_what_does_not_go_together(fields, said):
    with pytest.raises(ValueError, match=said):
        made(**fields)


def test_other_numbers_of_labels_are_refused():
    with pytest.raises(ValueError, match=r"expected logits of shape \(n, 3\), got \(2, 2\)"):
        made().probabilities(LOGITS[:, :2])


def test_the_same_model_under_another_name_is_the_same():
    # Nor do the profile's name, the largest image and fields that old files lack matter.
    image = {**PROFILE["image"], "max_pixels": 9, **ADDED}
    other = Identity("other", MODEL.weights, {**PROFILE, "name": "folder", "image": image})
    made().check(model=other, labels=list(LABELS))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": Identity("n", "tensors-sha256:2", PROFILE)}, "of m, and n here is another mode"),
        (
            {"profile": {**PROFILE, "image": {"res": 256}}},
            r"another preprocessing: its profile image.res \(224 there, 256 here\) differ",
        ),
        ({"labels": ("dog", "cat", "donut")}, "the same in another order"),
        ({"labels": ("cat", "dog", "donuts")}, r"'donuts' is none of its own \(it has 'donut'\)"),
        ({"labels": ("cat", "dog")}, "it has 3, and here are 2; its 'donut' is missing"),
        ({"templates": ("a {}",)}, "other templates: '{}', and here are 'a {}'"),
    ],
)
def test_any_other_is_refused_in_one_line(fields, said):
    with pytest.raises(ValueError, match=said) as caught:
        made().check(**{"model": MODEL, "labels": LABELS} | fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("calibration", [made(), curved()], ids=["platt", "isotonic"])
def test_a_file_says_the_same(tmp_path, calibration):
    rules = {"f1": np.array([0.1, 1 / 3, np.inf]), "0.5": np.full(3, 0.5)}
    calibration = dataclasses.replace(calibration, rules=rules, rule="f1", templates=("a {}", "{}"))
    calibration.save(tmp_path / "c.json")
    again = Calibration.load(tmp_path / "c.json")
    np.testing.assert_array_equal(again.probabilities(LOGITS), calibration.probabilities(LOGITS))
    np.testing.assert_array_equal(again.thresholds, rules["f1"])
    np.testing.assert_array_equal(again.with_threshold("0.5").thresholds, rules["0.5"])
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]
    for name in ("identity", "labels", "templates", "method", "n", "rule"):
        assert getattr(again, name) == getattr(calibration, name)


def changed(text, **fields):
    return json.dumps(json.loads(text) | fields)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:40], "not a calibration"),
        (lambda text: "[]", "expected an object, got list"),
        (lambda text: '{"format": "x"}', "its format is 'x', expected"),
        (lambda text: changed(text, labels=[1, 2, 3]), "its labels are not strings"),
        (lambda text: changed(text, profile=None), "its profile is no dict"),
        (lambda text: changed(text, bias=[1]), "expected biases of shape"),
        (lambda text: changed(text, bias="x"), "not a calibration"),
        (lambda text: text.replace('"scale": 0.5', '"scale": NaN'), "scale must be positive"),
        (lambda text: text.replace('"scale"', '"skale"'), "it has no scale"),
        (lambda text: changed(text, thresholds={"f1": [0.5]}), "thresholds of f1"),
        (lambda text: changed(text, curve=[[1]]), "not a calibration"),
        (lambda text: "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, change, said):
    path = tmp_path / "c.json"
    made().save(path)
    path.write_text(change(path.read_text("utf-8")), "utf-8")
    with pytest.raises(ValueError, match=said) as caught:
        Calibration.load(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    made().save(tmp_path / "labels.json")
    with pytest.raises(ValueError, match=r"label.json: no such file; did you mean .*labels.json\?"):
        Calibration.load(tmp_path / "label.json")
    with pytest.raises(ValueError, match="cannot be read as a calibration"):
        Calibration.load(tmp_path)


def test_thresholds():
    rules = {"precision=0.95": np.array([0.1, 0.2, np.inf])}
    calibration = made(rules=rules)
    assert calibration.thresholds is None
    assert calibration.with_threshold("0.25").thresholds.tolist() == [0.25] * 3
    said = r"has thresholds of precision=0.95; did you mean precision=0.95\?"
    with pytest.raises(ValueError, match=said):
        calibration.with_threshold("precision=0.9")
    with pytest.raises(ValueError, match="the calibration has none; give a number from 0 to 1"):
        made().with_threshold("1.5")


def test_scores_take_a_calibration():
    rules = {"f1": np.array([0.9, 0.1, np.inf])}
    raw = Scores(LOGITS[:1].astype(np.float32), LABELS)
    scores = raw.calibrated(made(rules=rules))
    np.testing.assert_array_equal(scores.probabilities, made().probabilities(raw.logits))
    assert scores.ranking().tolist() == raw.ranking().tolist()
    assert "donut 98.2%" in repr(scores)
    with pytest.raises(ValueError, match="there is no threshold"):
        scores.accepted()
    assert [hit.label for hit in scores.accepted(0.8)[0]] == ["donut", "dog"]
    by_label = raw.calibrated(made(rules=rules, rule="f1"))
    assert [hit.label for hit in by_label.accepted()[0]] == ["dog"]
    assert by_label.accepted(1.0) == [[]]


def test_scores_of_others_refuse_it():
    with pytest.raises(ValueError, match="of other labels"):
        Scores(LOGITS[:, :2], ("cat", "dog")).calibrated(made())
    with pytest.raises(ValueError, match="a model's own classes have none"):
        Scores(LOGITS, LABELS, "softmax").calibrated(made())


def test_it_needs_no_jax():
    import subprocess
    import sys

    code = "import sys; sys.modules['jax'] = None; from siglip_jax.calibration import Calibration"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_who_only_applies_one_does_not_wait_for_what_fits_one():
    code = (
        "import sys, siglip_jax.jobs.run, siglip_jax.serve\n"
        "assert not (found := {'scipy', 'sklearn'} & set(sys.modules)), found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
