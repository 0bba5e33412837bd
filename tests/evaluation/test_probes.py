"""Probes of frozen embeddings, against the formulas by other means."""

import functools

import numpy as np
import pytest
from scipy.optimize import minimize

from siglip_jax.evaluation import few_shot_accuracy, linear_probe, neighbour_probe


def clusters(seed, n, classes=4, d=8, noise=0.8):
    """Embeddings around a centre for each class; the first of them have one of every class."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, d))
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    z = centres[labels] + noise * rng.standard_normal((n, d))
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32), labels


TRAIN, TEST = clusters(0, 120), clusters(1, 200)


def test_a_linear_probe_is_logistic_regression():
    """The same minimum, found by scipy on the loss written out."""
    strength = 0.1
    got = linear_probe(*TRAIN, *TEST, strengths=[strength])
    z, labels = TRAIN
    mean, std = z.astype(np.float64).mean(0), z.astype(np.float64).std(0)
    x, hot = (z - mean) / std, np.eye(4)[labels]

    def loss(flat):
        weights, bias = flat[:32].reshape(8, 4), flat[32:]
        scores = x @ weights + bias
        scores -= scores.max(axis=1, keepdims=True)
        p = np.exp(scores)
        p /= p.sum(axis=1, keepdims=True)
        slope = strength * (p - hot)
        value = -strength * np.log(p[np.arange(len(p)), labels]).sum() + (weights**2).sum() / 2
        return value, np.concatenate([(x.T @ slope + weights).ravel(), slope.sum(0)])

    best = minimize(loss, np.zeros(36), jac=True, tol=1e-12).x
    scores = (TEST[0] - mean) / std @ best[:32].reshape(8, 4) + best[32:]
    predicted = scores.argmax(axis=1)
    np.testing.assert_array_equal(got.predicted, predicted)
    assert got.metrics["accuracy"] == (predicted == TEST[1]).mean()
    assert got.metrics["top5_accuracy"] == 1
    recalls = [(predicted[TEST[1] == index] == index).mean() for index in range(4)]
    assert got.metrics["mean_per_class_recall"] == pytest.approx(np.mean(recalls))
    assert 0.6 < got.metrics["accuracy"] < 1 and got.settings == {"seed": 0, "strength": 0.1}


def test_the_penalty_is_chosen_on_held_out_images():
    got = linear_probe(*TRAIN, *TEST)
    assert got.settings["strength"] > 1e-5 and 0.5 < got.settings["held_out_accuracy"] <= 1
    three = functools.partial(linear_probe, *TRAIN, TEST[0], strengths=(1e-4, 1e-2, 1))
    first, *others = [three(TEST[1], seed=seed) for seed in (0, 1, 2, 3)]
    assert len({each.settings["held_out_accuracy"] for each in (first, *others)}) > 1
    # Labels of the test data choose nothing; the same seed chooses the same.
    wrong = three(TEST[1][::-1])
    assert wrong.settings == first.settings and wrong.metrics["accuracy"] < 0.5
    np.testing.assert_array_equal(wrong.predicted, first.predicted)


def test_two_classes():
    z, labels = clusters(3, 60, classes=2)
    got = linear_probe(z, labels, z, labels, strengths=[1.0])
    assert got.metrics["accuracy"] > 0.9


def test_neighbours_vote():
    z, labels = (part.astype(np.float64) if part.dtype != int else part for part in TRAIN)
    got = neighbour_probe(*TRAIN, *TEST, neighbours=7, temperature=0.2)
    for row, test in enumerate(TEST[0].astype(np.float64)):
        cosine = z @ test / np.linalg.norm(z, axis=1) / np.linalg.norm(test)
        nearest = np.argsort(-cosine)[:7]
        votes = np.bincount(labels[nearest], np.exp(cosine[nearest] / 0.2), 4)
        assert got.predicted[row] == votes.argmax()
    assert got.metrics["accuracy"] == (got.predicted == TEST[1]).mean()
    assert got.settings == {"neighbours": 7, "temperature": 0.2}
    assert neighbour_probe(z[:4], labels[:4], *TEST).settings["neighbours"] == 4


@pytest.mark.parametrize("shots", [1, 3, 10])
def test_few_shots_are_least_squares(shots):
    """As `lstsq` of the equations with the penalty as further rows; fewer and more than d."""
    got = few_shot_accuracy(*TRAIN, *TEST, shots=shots, penalty=30.0)
    z, labels = TRAIN
    for seed, accuracy in enumerate(got):
        rng = np.random.default_rng(seed)
        chosen = [rng.permutation(np.where(labels == index)[0])[:shots] for index in range(4)]
        x = z[np.concatenate(chosen)].astype(np.float64)
        mean, std = x.mean(0), x.std(0) + 1e-5
        x, test = (
            np.hstack([(part - mean) / std, np.full((len(part), 1), 100.0)])
            for part in (x, TEST[0])
        )
        y = np.where(np.eye(4)[labels[np.concatenate(chosen)]] > 0, 1.0, -1.0)
        rows = np.vstack([x, np.sqrt(30.0) * np.eye(9)])
        weights = np.linalg.lstsq(rows, np.vstack([y, np.zeros((9, 4))]), rcond=None)[0]
        assert accuracy == ((test @ weights).argmax(1) == TEST[1]).mean()
    assert len(got) == 3 and (shots == 10 or len(set(got)) > 1) and min(got) > 0.3


@pytest.mark.parametrize("probe", [linear_probe, neighbour_probe, few_shot_accuracy])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": np.zeros((0, 8))}, r"train must have shape \(n, d\).*got \(0, 8\)"),
        ({"test": np.full((200, 8), np.nan)}, "some embeddings of test are not finite"),
        ({"test": np.zeros((200, 7))}, "train has 8 columns, test has 7"),
        ({"train_labels": [0, 1]}, "train_labels must hold one integer for each of the 120"),
        ({"test_labels": TEST[1] - 1}, "test_labels must be 0 or more, got -1"),
        ({"test_labels": TEST[1] + 1}, "1 of 5 classes have no example to learn from.*class 4"),
        ({"train_labels": TRAIN[1] * 0, "test_labels": TEST[1] * 0}, "there is one class alone"),
    ],
)
def test_bad_input(probe, change, message):
    names = ("train", "train_labels", "test", "test_labels")
    given = dict(zip(names, (*TRAIN, *TEST), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        probe(*given.values())


@pytest.mark.parametrize(
    ("probe", "options", "message"),
    [
        (linear_probe, {"strengths": []}, "strengths must be above 0"),
        (linear_probe, {"strengths": [0.0, 1]}, "strengths must be above 0"),
        (linear_probe, {"held_out": 1.0}, "held_out between 0 and 1"),
        (neighbour_probe, {"neighbours": 0}, "neighbours must be at least 1"),
        (neighbour_probe, {"temperature": 0.0}, "temperature above 0"),
        (few_shot_accuracy, {"shots": 0}, "shots and seeds must be at least 1"),
        (few_shot_accuracy, {"penalty": 0.0}, "penalty above 0"),
        (few_shot_accuracy, {"shots": 100}, "4 of 4 classes have fewer than 100 training images"),
    ],
)
def test_bad_settings(probe, options, message):
    with pytest.raises(ValueError, match=message):
        probe(*TRAIN, *TEST, **options)


def test_nothing_can_be_held_out():
    z, labels = TRAIN[0][:4], TRAIN[1][:4]
    with pytest.raises(ValueError, match="every class has one training image alone"):
        linear_probe(z, labels, *TEST)
    assert linear_probe(z, labels, *TEST, strengths=[1.0]).metrics["accuracy"] > 0.4


def test_what_does_not_converge_is_an_error(monkeypatch):
    from sklearn import linear_model

    real = linear_model.LogisticRegression
    monkeypatch.setattr(
        linear_model, "LogisticRegression", lambda C, max_iter: real(C=C, max_iter=1)
    )
    with pytest.raises(ValueError, match=r"probe of strength 10 does not converge; leave the"):
        linear_probe(*TRAIN, *TEST, strengths=[10.0])
