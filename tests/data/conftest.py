"""A stand-in for TensorFlow Datasets."""

import sys
import types

import numpy as np
import pytest
from pair_files import captions, png


class Records:
    """What `tensorflow_datasets.data_source` returns, of images that were not decoded."""

    def __init__(self, caption, count=4):
        self.caption, self.count = caption, count
        number, text = (
            types.SimpleNamespace(np_dtype=kind, shape=()) for kind in (np.int64, object)
        )
        features = {"image": ..., "image/id": number, caption: text if caption == "text" else ...}
        self.dataset_info = types.SimpleNamespace(features=features, version="1.1.0")

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        texts = np.array([text.encode() for text in captions(index)], object)
        values = {
            "caption": texts[0],
            "text": np.array(texts[0]),
            "captions": {"id": np.arange(2), "text": texts},
            "titles": texts,
            "words": np.array([], object),
        }
        return {"image": png(index), "image/id": index, self.caption: values[self.caption]}


@pytest.fixture
def tfds(monkeypatch):
    """Stands in for the package; `asked` holds what it was asked for."""
    module = types.ModuleType("tensorflow_datasets")
    module.Records = Records
    module.asked, module.caption = [], "captions"
    module.decode = types.SimpleNamespace(SkipDecoding=lambda: "undecoded")

    def data_source(name, *, split, decoders):
        module.asked.append((name, split, decoders))
        if name == "unknown":
            raise RuntimeError("Dataset unknown not found\nmany more lines")
        return Records(module.caption)

    module.data_source = data_source
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return module
