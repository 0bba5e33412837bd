"""What methods find: known numbers again, and on held-out emoji nothing worse than before."""

import dataclasses
import io
import json

import numpy as np
import pyarrow.parquet
import pytest
from paths import FIXTURES
from PIL import Image
from scipy.special import expit

import siglip_jax
from siglip_jax.calibration import Identity, calibrate, measure, targets_of
from siglip_jax.calibration.quality import log_loss
from siglip_jax.scoring import Scores

MODEL = Identity("m", "tensors-sha256:1", {})


def named(count):
    return tuple(f"label {number}" for number in range(count))


def synthetic(seed, scale, bias, images=2000, labels=5):
    """Scores of which `scale` and `bias` make the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-4, 3, (images, labels)).astype(np.float32)
    true = expit(scale * logits.astype(np.float64) + bias)
    return Scores(logits, named(labels)), rng.random(true.shape) < true


def errors(logits, scale, bias):
    """Standard errors of log scale and bias, from the Fisher information."""
    p = expit(scale * logits + bias)
    slopes = np.stack([(scale * logits).ravel(), np.ones(logits.size)])
    return np.sqrt(np.diag(np.linalg.inv((slopes * (p * (1 - p)).ravel()) @ slopes.T)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("scale", "bias"), [(0.4, 1.0), (1.0, 3.0), (1.6, -0.5)])
def test_known_scale_and_bias_are_recovered(seed, scale, bias):
    scores, targets = synthetic(seed, scale, bias)
    made = calibrate(scores, targets, model=MODEL)
    off = np.array([np.log(made.scale / scale), made.bias[0] - bias])
    assert (np.abs(off) <= 3 * errors(scores.logits.astype(float), scale, bias)).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_known_bias_is_recovered(seed):
    scores, targets = synthetic(seed, 1.0, 2.5)
    p = expit(scores.logits.astype(float) + 2.5)
    made = calibrate(scores, targets, model=MODEL, method="bias")
    assert made.scale == 1 and np.ptp(made.bias) == 0
    assert abs(made.bias[0] - 2.5) <= 3 / np.sqrt((p * (1 - p)).sum())


def test_biases_of_labels_are_drawn_to_that_of_all():
    rng = np.random.default_rng(0)
    logits = rng.normal(-2, 2, (4000, 3)).astype(np.float32)
    own = np.array([-1.0, 0.0, 2.0])
    targets = rng.random(logits.shape) < expit(logits + own)
    targets[:, 1] = False
    targets[:3, 1] = True  # three examples only
    scores = Scores(logits, named(3))
    made = calibrate(scores, targets, model=MODEL, method="bias", per_label=True)
    shared = calibrate(scores, targets, model=MODEL, method="bias").bias[0]
    np.testing.assert_allclose(made.bias[[0, 2]], own[[0, 2]], atol=0.2)
    alone = calibrate(
        Scores(logits[:, 1:2], named(1)), targets[:, 1:2], model=MODEL, method="bias"
    ).bias[0]
    # 3 of 13 parts its own.
    assert made.bias[1] == pytest.approx(shared + 3 / 13 * (alone - shared), abs=0.3)


@pytest.mark.parametrize("expected", [0.01, 1.0, 2.5, 4.99])
def test_the_expected_row_sum_is_met(expected):
    scores, _ = synthetic(0, 1.0, 0.0)
    made = calibrate(scores, model=MODEL, expect=expected)
    assert abs(made.probabilities(scores.logits).sum(axis=1).mean() - expected) <= 1e-3


def test_a_curve_fits_what_no_scale_does():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6000, 2)).astype(np.float32)
    true = np.where(logits > 1, 0.8, np.where(logits > -2, 0.5, 0.05))
    scores, targets = Scores(logits, named(2)), rng.random(true.shape) < true
    half = Scores(logits[:3000], named(2))
    losses = {}
    for method in ("none", "platt", "isotonic"):
        made = calibrate(half, targets[:3000], model=MODEL, method=method)
        losses[method] = log_loss(made.probabilities(scores.logits[3000:]), targets[3000:])
        assert np.isfinite(losses[method])
        # Rising, to the ends and past them.
        reach = np.linspace(-100, 100, 500)
        assert (np.diff(made.probabilities(np.stack([reach, reach], 1))[:, 0]) >= 0).all()
    assert losses["isotonic"] < losses["platt"] - 0.01 < losses["none"]


def test_a_softmax_means_another_thing():
    rng = np.random.default_rng(0)
    logits = 4 * rng.normal(size=(3000, 4)).astype(np.float32)
    p = np.exp(0.5 * logits)
    right = (p.cumsum(1) / p.sum(1, keepdims=True) > rng.random((3000, 1))).argmax(1)
    targets = np.eye(4)[right]
    scores = Scores(logits, named(4))
    made = calibrate(scores, targets, model=MODEL, method="softmax")
    assert made.scale == pytest.approx(0.5, rel=0.1)
    np.testing.assert_allclose(made.probabilities(logits).sum(axis=1), 1)
    assert calibrate(scores, model=MODEL, method="softmax").scale == 1
    targets[7] = 0
    with pytest.raises(ValueError, match="image 7 has 0; the other methods"):
        calibrate(scores, targets, model=MODEL, method="softmax")


@pytest.mark.parametrize("method", ["expect", "bias", "per label", "platt", "isotonic", "softmax"])
def test_the_order_of_labels_does_not_change(method):
    scores, targets = synthetic(3, 0.5, 1.0)
    if method == "softmax":
        targets = np.eye(5)[targets.argmax(1)]
    per_label = method == "per label"
    options = {"method": "bias", "per_label": True} if per_label else {"method": method}
    made = calibrate(scores, targets, model=MODEL, **options)
    calibrated = scores.calibrated(made)
    np.testing.assert_array_equal(calibrated.ranking(), scores.ranking())
    for before, after in zip(scores.top(), calibrated.top(), strict=True):
        assert [hit.label for hit in before] == [hit.label for hit in after]
    if not per_label:
        # Of one bias for all, no more does that of the probabilities.
        ordered = np.take_along_axis(calibrated.probabilities, scores.ranking(), axis=1)
        assert (np.diff(ordered, axis=1) <= 0).all()


@pytest.fixture(scope="module")
def emoji():
    """Scores and targets of the pictures that the bundled model has never seen."""
    table = pyarrow.parquet.read_table(FIXTURES / "emoji_heldout.parquet")
    evaluations = json.loads(table.schema.metadata[b"evaluations"])
    scorer = siglip_jax.load("siglip_emoji").scorer(batch_size=64, text_batch_size=256)
    found = {}
    for name, about in evaluations.items():
        rows = [row for row in table.to_pylist() if row["evaluation"] == name]
        right = [about["captions"][row["right"][0]] for row in rows]
        labels = list(dict.fromkeys(right))
        images = [Image.open(io.BytesIO(row["image"])) for row in rows]
        found[name] = scorer.score(images, labels), targets_of([[r] for r in right], labels)
    return found


def part(scores, rows):
    return dataclasses.replace(scores, logits=scores.logits[rows])


def test_without_a_label_the_loss_falls_by_a_third(emoji):
    scores, targets = emoji["unseen_combinations"]
    for seed in range(20):
        rows = np.random.default_rng(seed).permutation(len(targets))
        half, rest = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        made = calibrate(part(scores, half), model=MODEL, expect=1)
        unseen = part(scores, rest)
        before = log_loss(unseen.probabilities, targets[rest])
        after = log_loss(unseen.calibrated(made).probabilities, targets[rest])
        assert after <= 0.7 * before


@pytest.mark.parametrize("name", ["unseen_combinations", "unseen_names"])
@pytest.mark.parametrize("method", ["platt", "bias"])
def test_eight_labelled_images_never_make_it_worse(emoji, name, method):
    scores, targets = emoji[name]
    for seed in range(100):
        rows = np.random.default_rng(seed).permutation(len(targets))
        eight, rest = rows[:8], rows[8:]
        made = calibrate(part(scores, eight), targets[eight], model=MODEL, method=method)
        unseen = part(scores, rest)
        before = log_loss(unseen.probabilities, targets[rest])
        after = log_loss(unseen.calibrated(made).probabilities, targets[rest])
        assert after <= 1.02 * before


def test_labels_that_are_not_known_are_called_so(emoji):
    scores, targets = emoji["unseen_names"]
    found = measure(calibrate(scores, targets, model=MODEL), scores, targets)
    assert found.before.auc < 0.75 and found.after.nll < 0.6 * found.before.nll
    assert (
        "hardly separated by this model: a right label is scored above a wrong one in 72%"
        in (found.words[0])
    )
    scores, targets = emoji["unseen_combinations"]
    found = measure(calibrate(scores, targets, model=MODEL), scores, targets)
    assert found.words == () and found.before.auc > 0.99
    assert found.after.nll < 0.7 * found.before.nll and found.after.ece < found.before.ece
