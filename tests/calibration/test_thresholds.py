"""Thresholds: what they promise holds on images not seen; what cannot be promised is said."""

import dataclasses

import numpy as np
import pytest
from scipy.special import expit

from siglip_jax.calibration import Identity, calibrate, measure, targets_of
from siglip_jax.calibration.thresholds import limits, rule_named
from siglip_jax.scoring import Scores

MODEL = Identity("m", "tensors-sha256:1", {})


def drawn(rng, images, labels=3, share=0.3, apart=3.0):
    """Probabilities (images, labels) and targets."""
    targets = rng.random((images, labels)) < share
    return expit(rng.normal(size=targets.shape) + apart * targets - 2), targets


def accepted(limit, rng):
    """Precision, recall and false-positive rate of thresholds, on many images."""
    p, targets = drawn(rng, 40_000, len(limit))
    hits = p >= limit
    return (
        targets[hits].mean() if hits.any() else 1.0,
        hits[targets].mean(),
        hits[~targets].mean(),
    )


@pytest.mark.parametrize("images", [150, 1000])
def test_a_precision_holds_in_95_of_100_resamples(images):
    """Each label's own with 1,000 images, one for all of them with 150."""
    held, found = 0, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        try:
            limit = limits(*drawn(rng, images), rule_named("precision=0.95"))
        except ValueError:
            held += 1  # nothing was promised
            continue
        assert (np.unique(limit).size == 1) == (images == 150)
        precision, recall, _ = accepted(limit, rng)
        held, found = held + (precision >= 0.95), found + (recall > 0.2)
    # To promise nothing would hold as well.
    assert held >= 95 and found >= (90 if images == 1000 else 20)


def test_a_recall_holds_in_95_of_100_resamples():
    held, most = 0, 0.0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        _, recall, _ = accepted(limits(*drawn(rng, 1000), rule_named("recall=0.9")), rng)
        held, most = held + (recall >= 0.9), max(most, recall)
    assert held >= 95 and most < 0.99


def test_a_rate_of_negatives_alone_holds_on_average():
    rates = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        p, _ = drawn(rng, 200, share=0.0)
        limit = limits(p, np.zeros(p.shape, bool), rule_named("fpr=0.05"))
        rates.append(accepted(limit, rng)[2])
    # One of 300 thresholds is off by 0.0154, so that the mean has a standard error of 0.0009.
    assert 0.045 < np.mean(rates) <= 0.05 + 3 * 0.0009


def test_the_largest_f():
    p, targets = drawn(np.random.default_rng(0), 500, 1)
    for rule, weight in (("f1", 1.0), ("f2", 2.0), ("f0.5", 0.5)):
        (limit,) = limits(p, targets, rule_named(rule))

        def f(at, weight=weight):
            hits = p >= at
            precision, recall = targets[hits].mean(), hits[targets].mean()
            return (1 + weight**2) * precision * recall / (weight**2 * precision + recall)

        assert f(limit) >= max(f(at) for at in np.unique(p)) - 1e-9


@pytest.mark.parametrize("rule", ["f1", "f2", "f0.5"])
def test_the_largest_f_does_not_hang_on_a_last_bit(rule):
    """The same images in batches of another size have probabilities that differ by rounding."""
    rng = np.random.default_rng(3)
    p, targets = drawn(rng, 80)
    own = limits(p, targets, rule_named(rule))
    assert np.abs(p - own).min() > 1e-7


def test_labels_with_few_examples_share_a_threshold():
    p, targets = drawn(np.random.default_rng(0), 400, 4)
    targets[5:, 1] = targets[7:, 2] = False
    own = limits(p, targets, rule_named("f1"))
    assert own[1] == own[2] and len(set(own.tolist())) == 3
    assert own[0] == limits(p[:, :1], targets[:, :1], rule_named("f1"))[0]


def test_equal_scores_are_accepted_together():
    p = np.repeat([[0.9], [0.5], [0.1]], 100, axis=0)
    targets = np.arange(300).reshape(-1, 1) < 150
    (limit,) = limits(p, targets, rule_named("precision=0.95"))
    assert limit == 0.9  # half of those with 0.5 are wrong


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("precison=0.9", r"did you mean precision=NUMBER\?"),
        ("precision=1", "with a number between 0 and 1"),
        ("precision=nan", "with a number between 0 and 1"),
        ("precision", "expected f1 .*, precision=P"),
        ("f", "expected f1"),
        ("0.5", "expected f1"),
        ("", "expected f1"),
    ],
)
def test_no_such_rule(text, said):
    with pytest.raises(ValueError, match=said):
        rule_named(text)


@pytest.mark.parametrize(
    ("rule", "images", "said"),
    [
        ("precision=0.95", 10, r"it takes at least 59 positive examples, and here are \d+"),
        ("recall=0.99", 50, "it takes at least 299 positive examples"),
        ("fpr=0.001", 20, "it takes at least 999 negative examples"),
        ("precision=0.999", 9999, "no threshold reaches it on these images, with a confidence"),
    ],
)
def test_what_cannot_be_promised(rule, images, said):
    p, targets = drawn(np.random.default_rng(0), images, apart=0.5)
    with pytest.raises(ValueError, match=f"^threshold {rule}: {said}"):
        limits(p, targets, rule_named(rule))


def test_a_label_that_is_never_accepted_is_named():
    rng = np.random.default_rng(0)
    p, targets = drawn(rng, 1000, 2)
    p[:, 1] = rng.random(1000)
    scores = Scores(np.log(p / (1 - p)).astype(np.float32), ("cat", "dog"))
    made = calibrate(scores, targets, model=MODEL, thresholds=["precision=0.9", "f1"])
    assert np.isinf(made.thresholds).tolist() == [False, True]
    assert not any(h.label == "dog" for hits in scores.calibrated(made).accepted() for h in hits)
    words = measure(made, scores, targets).words
    assert any("1 of 2 labels, such as 'dog' (AUC" in said for said in words)
    assert any("No threshold keeps precision=0.9 for 1 of 2 labels" in said for said in words)
    # The file keeps all rules, and the one that is chosen.
    assert list(made.rules) == ["precision=0.9", "f1"] and made.rule == "precision=0.9"


def good(images=40):
    rng = np.random.default_rng(0)
    targets = rng.random((images, 2)) < 0.4
    logits = (rng.normal(size=targets.shape) + 4 * targets - 3).astype(np.float32)
    return Scores(logits, ("cat", "dog")), targets


def changed(**fields):
    scores, targets = good()
    return dataclasses.replace(scores, **fields), targets


def nan():
    logits = good()[0].logits.copy()
    logits[3, 1] = np.nan
    return logits


@pytest.mark.parametrize(
    ("scores", "targets", "options", "said"),
    [
        (nan(), ..., {}, "the scores of 1 of 40 images are NaN or infinite, the first of image 3"),
        (np.full((40, 2), -7.5), ..., {}, "all 80 scores are the same, -7.5"),
        (np.full((40, 2), -7.5), None, {}, "all 80 scores are the same, -7.5"),
        (np.zeros((0, 2)), None, {}, "there is no image"),
        (..., np.zeros((40, 2)), {}, "there is no positive example; expected two or more"),
        (..., np.eye(40, 2, 1) > 0, {}, "there is one positive example, of 'dog'; expected two"),
        (..., np.ones((40, 2)), {}, "there is no negative example"),
        (..., np.full((40, 2), 0.5), {}, "expected targets of shape"),
        (..., np.ones((40, 3)), {}, r"expected targets of shape \(40, 2\).* got \(40, 3\)"),
        (..., None, {"method": "platt"}, "this needs labelled images"),
        (..., None, {"thresholds": ["f1"]}, "this needs labelled images"),
        (..., None, {"thresholds": ["fpr=0.1"]}, "this needs labelled images"),
        (..., None, {"expect": 2}, "between 0 and 2, got 2"),
        (..., None, {"expect": float("nan")}, "between 0 and 2, got nan"),
        (..., ..., {"method": "isotonic"}, "needs 300 positive and 300 negative examples, and her"),
        (..., ..., {"method": "plat"}, r"did you mean platt\?"),
        (..., ..., {"per_label": True}, "a bias for each label is of the method bias, not of plat"),
        (
            ...,
            np.arange(80).reshape(40, 2) % 4 == 0,
            {"method": "bias", "per_label": True},
            "1 of 2 labels has no image, such as 'dog'",
        ),
    ],
)
def test_bad_input_is_one_line(scores, targets, options, said):
    whole, known = good()
    scores = whole if scores is ... else dataclasses.replace(whole, logits=scores)
    targets = known if targets is ... else targets
    with pytest.raises(ValueError, match=said) as caught:
        calibrate(scores, targets, model=MODEL, **options)
    assert "\n" not in str(caught.value)


def test_a_label_that_is_only_in_the_part_to_measure_on():
    scores, targets = good()
    targets[:, 1] = False
    targets[5, 1] = True
    made = calibrate(scores, targets, model=MODEL, method="bias", per_label=True)
    said = "1 of 2 labels has no image but in the part that is measured on, such as 'dog'"
    with pytest.raises(ValueError, match=said):
        measure(made, scores, targets)


def test_labels_of_images_that_are_none_of_the_list():
    with pytest.raises(ValueError, match=r"1 label of the images is none of the 2 to calibrate"):
        targets_of([["dogs"], ["cat"]], ["cat", "dog"])
    with pytest.raises(ValueError, match=r"'dogs'; did you mean dog\?"):
        targets_of([["dogs"], ["cat"]], ["cat", "dog"])
    with pytest.raises(ValueError, match="the label 'cat' is there twice"):
        targets_of([["cat"]], ["cat", "dog", "cat"])


def test_scores_that_are_not_of_labels():
    scores, targets = changed(activation="softmax")
    with pytest.raises(ValueError, match="expected the model's own scores of labels"):
        calibrate(scores, targets, model=MODEL)
    scores, targets = good()
    calibrated = scores.calibrated(calibrate(scores, targets, model=MODEL))
    with pytest.raises(ValueError, match="expected the model's own scores of labels"):
        calibrate(calibrated, targets, model=MODEL)


def test_labels_that_mean_nothing_to_the_model():
    rng = np.random.default_rng(0)
    scores = Scores(rng.normal(-4, 2, (400, 3)).astype(np.float32), ("a", "b", "c"))
    targets = rng.random((400, 3)) < 0.2
    found = measure(calibrate(scores, targets, model=MODEL), scores, targets)
    assert found.words[0].startswith("These labels are not separated by this model: a right label")
    assert found.auc_interval[0] < 0.5 < found.auc_interval[1]
    described = found.describe()
    assert described["before"]["auc"] == found.before.auc and described["images"] == 400


def test_a_report_without_labels_says_what_rows_sum_to():
    scores, _ = good()
    found = measure(calibrate(scores, model=MODEL, expect=0.5), scores)
    assert found.before is found.after is found.positives is found.auc_interval is None
    assert found.row_sums[1] == pytest.approx(0.5, abs=1e-3) and found.row_sums[0] != 0.5


def test_measured_numbers_are_of_images_that_the_fit_has_not_seen():
    scores, targets = good(12)
    made = calibrate(scores, targets, model=MODEL)
    found = measure(made, scores, targets)
    assert not np.allclose(found.probabilities[1], made.probabilities(scores.logits))
