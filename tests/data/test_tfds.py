"""Pairs from TensorFlow Datasets, with a stand-in for its `data_source`."""

import pickle
import sys

import pytest
from pair_files import captions, png

from siglip_jax.data import captions_of, open_pairs


@pytest.mark.parametrize(
    ("caption", "name", "expected"),
    [
        ("captions", None, captions(2)),
        ("caption", None, captions(2)[:1]),
        ("text", None, captions(2)[:1]),
        ("titles", "titles", captions(2)),
    ],
)
def test_features_of_several_shapes(tfds, caption, name, expected):
    tfds.caption = caption
    pairs = open_pairs("tfds:coco", caption=name)
    assert len(pairs) == 4
    assert pairs[2] == ("coco:train:2", png(2), expected)
    assert captions_of(pairs)[2] == expected


@pytest.mark.parametrize(
    ("source", "name", "split"),
    [
        ("tfds:coco/2014", "coco/2014", "train"),
        ("tfds:coco:val", "coco", "val"),
        ("tfds:coco:1.1.0", "coco:1.1.0", "train"),
        ("tfds:coco:1.*.*:train[:50%]", "coco:1.*.*", "train[:50%]"),
    ],
)
def test_names_versions_and_splits(tfds, source, name, split):
    open_pairs(source)
    assert tfds.asked == [(name, split, {"image": "undecoded"})]


def test_a_copy_opens_its_own(tfds):
    pairs = open_pairs("tfds:coco:val")
    copy = pickle.loads(pickle.dumps(pairs))
    assert len(tfds.asked) == 2
    assert copy[1] == pairs[1]
    assert copy.identity() == pairs.identity() != open_pairs("tfds:coco:test").identity()


def test_what_can_be_wrong(tfds, monkeypatch):
    with pytest.raises(ValueError, match=r"^tfds:: expected tfds:NAME or tfds:NAME:SPLIT$"):
        open_pairs("tfds:")
    message = r"^tfds:unknown: cannot be opened: Dataset unknown not found$"
    with pytest.raises(ValueError, match=message):
        open_pairs("tfds:unknown")
    message = r"tfds:coco: no column caption; .*; did you mean caption='captions'\?$"
    with pytest.raises(ValueError, match=message):
        open_pairs("tfds:coco", caption="caption")
    tfds.caption = "words"
    pairs = open_pairs("tfds:coco", caption="words")
    with pytest.raises(ValueError, match=r"^coco:train:1: no caption$"):
        pairs[1]
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    message = r"tensorflow_datasets is not installed; pip install tensorflow-datasets array_record$"
    with pytest.raises(ValueError, match=message):
        open_pairs("tfds:coco")
