"""TensorFlow Datasets, with a stand-in for the package."""

import pickle
import sys

import pytest
from job_inputs import items
from pair_files import captions, png

from siglip_jax.data import captions_of, open_items, open_pairs


def test_shards_of_records(tfds):
    source = open_items(["tfds:coco:1.1.0:val"], shard_size=3)
    assert tfds.asked == [("coco:1.1.0", "val", {"image": "undecoded"})]
    assert [(shard.name, shard.items) for shard in source.shards()] == [
        ("coco:1.1.0:val from record 0", 3),
        ("coco:1.1.0:val from record 3", 1),
    ]
    found = items(pickle.loads(pickle.dumps(source)))
    assert found[3] == ("coco:1.1.0:val:3", png(3), "dog 3", None)
    assert [item.key for item in source.read(0, {"coco:1.1.0:val:1"})] == ["coco:1.1.0:val:1"]


def test_texts_alone(tfds):
    source = open_items(["tfds:coco"], only="texts")
    assert [(item.key, item.text) for item in items(source)][:2] == [
        ("coco:train:0", "dog 0"),
        ("coco:train:0/2", "cat 0"),
    ]


def test_a_damaged_record(tfds, monkeypatch):
    def fails(self, index):
        raise RuntimeError("bad\nvery")

    monkeypatch.setattr(sys.modules["tensorflow_datasets"].Records, "__getitem__", fails)
    first = next(open_items(["tfds:coco"]).read(0))
    assert first == ("coco:train:0", None, None, "coco:train:0: cannot be read: bad")
    with pytest.raises(ValueError, match=r"^coco:train:1: cannot be read: bad$"):
        open_pairs("tfds:coco")[1]


def test_a_pair_without_a_caption(tfds):
    tfds.caption = "words"
    pairs = open_pairs("tfds:coco", text_column="words")
    with pytest.raises(ValueError, match=r"^coco:train:1: no text in feature words$"):
        pairs[1]


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("tfds:unknown", {}, "tfds:unknown: cannot be opened: Dataset unknown not found$"),
        ("tfds:", {}, "tfds:: expected tfds:NAME or tfds:NAME:SPLIT"),
        (
            "tfds:coco",
            {"image_column": "imag"},
            "tfds:coco: no column imag; .*did you mean image_column='image'",
        ),
        ("tfds:coco", {"key_column": "id"}, "tfds:coco: tfds have no column of keys"),
    ],
)
def test_bad_names(tfds, spec, options, message):
    for opened in (open_items, open_pairs):
        with pytest.raises(ValueError, match=message):
            opened(spec, **options)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for opened in (open_items, open_pairs):
        with pytest.raises(ValueError, match="tfds:coco: tensorflow_datasets is not installed; pi"):
            opened("tfds:coco")


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
    pairs = open_pairs("tfds:coco", text_column=name)
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
