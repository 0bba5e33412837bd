"""Mean average precision, against the definition written out."""

import numpy as np
import pytest

from siglip_jax.evaluation import average_precision
from siglip_jax.programs import make_mesh


def by_hand(similarity, own):
    """Of one class: similarities (n,) and which images are of it."""
    order = sorted(range(len(similarity)), key=lambda row: (-similarity[row], row))
    hits, found = 0, []
    for place, row in enumerate(order, 1):
        if own[row]:
            hits += 1
            found.append(hits / place)
    return sum(found) / len(found)


def test_by_hand():
    # Class 0: its images are first and third of four. Class 1: last. Class 2: all but the first.
    similarity = np.float32([[4, 9, 9], [3, 8, 8], [2, 7, 7], [1, 6, 6]])
    labels = [[0, -1], [2, -1], [0, 2], [2, 1]]
    got = average_precision(similarity, np.eye(3), labels)
    np.testing.assert_allclose(got, [(1 + 2 / 3) / 2, 1 / 4, (1 / 2 + 2 / 3 + 3 / 4) / 3])
    assert got.dtype == np.float64


@pytest.mark.parametrize("mesh", [None, make_mesh(), make_mesh(model=2)])
def test_many_classes_on_several_devices(mesh):
    rng = np.random.default_rng(0)
    zimg = rng.integers(-3, 4, (90, 5)).astype(np.float32)  # with ties, and no rounding
    classes = rng.integers(-3, 4, (70, 5)).astype(np.float32)
    labels = rng.integers(-1, 70, (90, 6))
    labels[0, 0] = labels[:70, 1] = -1
    labels[:70, 1] = np.arange(70)
    own = np.array([(labels == index).any(axis=1) for index in range(70)])
    got = average_precision(zimg, classes, labels, mesh=mesh)
    expected = [by_hand(z, mine) for z, mine in zip(classes @ zimg.T, own, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert 0.02 < got.mean() < 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [[0], [0], [1]]}, "1 of 3 classes have no image, the first is class 2"),
        ({"labels": [[0], [1]]}, r"labels must be integers of shape \(3,\)"),
        ({"labels": [[0], [1], [3]]}, r"labels must lie in 0\.\.2"),
        ({"labels": np.zeros((3, 0), int)}, r"labels must lie in 0\.\.2.*got none"),
        ({"zimg": np.full((3, 3), np.nan)}, "some embeddings are not finite"),
        ({"classes": np.zeros((0, 3))}, r"expected embeddings.*got \(3, 3\) and \(0, 3\)"),
    ],
)
def test_bad_input(change, message):
    good = {"zimg": np.eye(3), "classes": np.eye(3), "labels": [[0], [1], [2]]}
    with pytest.raises(ValueError, match=message):
        average_precision(**(good | change))
