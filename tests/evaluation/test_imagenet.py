"""ImageNet's names and subsets."""

import hashlib

import numpy as np
import pytest

from siglip_jax.evaluation import IMAGENET_NAMES, class_texts, imagenet_classes, imagenet_labels
from siglip_jax.evaluation.imagenet import IMAGENET_SETS

# Of big_vision's lists at 0127fb6, joined by line breaks.
DIGESTS = {
    "imagenet": "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60",
    "imagenet_a": "4b36c17b1b1bba6c18f01853a5cec90f5a342594ef1e9cfd7b64f374db61ccfc",
    "imagenet_r": "79cac199a91468418c879d1cc78ed06512c6ad13ed7e2cda4d550decccd6f7a1",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_classes_are_those_of_the_benchmarks(name):
    classes = imagenet_classes(name)
    assert hashlib.sha256("\n".join(classes).encode()).hexdigest() == DIGESTS[name]
    assert len(classes) == (1000 if name == "imagenet" else 200)
    assert all(texts == [texts[0]] for texts in class_texts(classes, ["{}"]))


@pytest.mark.parametrize("name", DIGESTS)
def test_labels_are_mapped(name):
    indices = np.array(IMAGENET_SETS[name])
    assert (np.diff(indices) > 0).all()
    mapped = imagenet_labels(np.stack([indices, -np.ones_like(indices)]), name)
    np.testing.assert_array_equal(mapped, [np.arange(len(indices)), -np.ones(len(indices))])
    assert [imagenet_classes(name)[i] for i in mapped[0]] == [IMAGENET_NAMES[i] for i in indices]


@pytest.mark.parametrize(
    ("labels", "name", "message"),
    [
        ([6, 0, 7], "imagenet_a", "2 of 3 labels are not of the 200 classes of imagenet_a.*as 0"),
        ([1000], "imagenet", r"1 of 1 labels are not of 0\.\.999, such as 1000"),
        ([-2], "imagenet_r", "1 of 1 labels.*such as -2"),
        ([0.0], "imagenet", "labels must be integers, got float64"),
        ([0], "imagenet_b", "name must be one of .* got 'imagenet_b'; did you mean imagenet_"),
    ],
)
def test_bad_labels(labels, name, message):
    with pytest.raises(ValueError, match=message):
        imagenet_labels(labels, name)
