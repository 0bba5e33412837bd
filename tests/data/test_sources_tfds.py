"""TensorFlow Datasets as the source of a bulk job, with a stand-in for the package."""

import pickle
import sys

import pytest
from job_inputs import items
from pair_files import png

from siglip_jax.jobs.sources import open_source


def test_shards_of_records(tfds):
    source = open_source(["tfds:coco:1.1.0:val"], shard_size=3)
    assert tfds.asked == [("coco:1.1.0", "val", {"image": "undecoded"})]
    assert [(shard.name, shard.items) for shard in source.shards()] == [
        ("coco:1.1.0:val from record 0", 3),
        ("coco:1.1.0:val from record 3", 1),
    ]
    found = items(pickle.loads(pickle.dumps(source)))
    assert found[3] == ("coco:1.1.0:val:3", png(3), "dog 3", None)
    assert [item.key for item in source.read(0, {"coco:1.1.0:val:1"})] == ["coco:1.1.0:val:1"]


def test_texts_alone(tfds):
    source = open_source(["tfds:coco"], only="texts")
    assert [(item.key, item.text) for item in items(source)][:2] == [
        ("coco:train:0", "dog 0"),
        ("coco:train:0/2", "cat 0"),
    ]


def test_a_damaged_record(tfds, monkeypatch):
    def fails(self, index):
        raise RuntimeError("bad\nvery")

    monkeypatch.setattr(sys.modules["tensorflow_datasets"].Records, "__getitem__", fails)
    first = next(open_source(["tfds:coco"]).read(0))
    assert first == ("coco:train:0", None, None, "coco:train:0: cannot be read: bad")


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("tfds:unknown", {}, "tfds:unknown: cannot be opened: Dataset unknown not found$"),
        ("tfds:", {}, "tfds:: expected tfds:NAME or tfds:NAME:SPLIT"),
        ("tfds:coco", {"image": "imag"}, "tfds:coco: no column imag; .*did you mean image='image'"),
        ("tfds:coco", {"key": "id"}, "tfds:coco: key= names a column, and tfds have none"),
    ],
)
def test_bad_names(tfds, spec, options, message):
    with pytest.raises(ValueError, match=message):
        open_source([spec], **options)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match="tfds:coco: tensorflow_datasets is not installed; pip"):
        open_source(["tfds:coco"])
