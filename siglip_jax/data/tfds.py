"""Pairs from TensorFlow Datasets."""

import re
from typing import Any

import numpy as np

from siglip_jax.data.pair import Pair, choose_column, digest, text_captions
from siglip_jax.optional import optional_package

# A version is part of the name, and a split may be cut: tfds:coco_captions:1.1.0:train[:50%].
_SOURCE = re.compile(r"tfds:([^:\[]+(?::\d[\d.*]*)?)(?::(.+))?")
_CAPTIONS = ("caption", "captions", "text")


def open_records(source: str, image: str | None) -> tuple[str, str, Any]:
    """The name of a prepared dataset, the split, and its records, in random access.

    Args:
      source: `tfds:NAME` or `tfds:NAME:SPLIT`; the split is train unless given.
      image: feature that holds the image; `image` unless given. It comes as the bytes of
        the file.

    Raises:
      ValueError: if `source` is written otherwise, tensorflow_datasets is missing, or the
        dataset cannot be opened.
    """
    parts = _SOURCE.fullmatch(source)
    if parts is None:
        raise ValueError(f"{source}: expected tfds:NAME or tfds:NAME:SPLIT")
    name, split = parts[1], parts[2] or "train"
    tfds = optional_package(
        "tensorflow_datasets",
        "tensorflow-datasets array_record",
        name=f"{source}: tensorflow_datasets",
    )
    # The bytes of the file, so that it is decoded as every other picture is.
    encoded = {image or "image": tfds.decode.SkipDecoding()}
    try:
        return name, split, tfds.data_source(name, split=split, decoders=encoded)
    # Its errors are of many kinds, and some messages are pages long.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{source}: cannot be opened: {reason}") from error


def record_texts(value: Any) -> tuple[str, ...]:
    """The texts in a feature of a record; blank ones are left out.

    Args:
      value: a text, a sequence of texts, or a sequence of features of which `text` is one.

    >>> record_texts({"id": [1, 2], "text": np.array([b"a dog", b""], object)})
    ('a dog',)
    """
    if isinstance(value, dict):
        value = value.get("text")
    values = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    values = values if isinstance(values, list) else [values]
    return text_captions(
        [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values]
    )


class TfdsPairs:
    """Pairs from a prepared dataset of tensorflow_datasets, without TensorFlow.

    The dataset must be prepared as array_record, the file format with random access.
    A record is read whole for its captions too, so that pairs without a caption show
    when their turn comes: they are then replaced as unreadable pictures are.

    Args:
      source: `tfds:NAME` or `tfds:NAME:SPLIT`, as `tensorflow_datasets.data_source`
        takes them; the split is train unless given.
      image: feature that holds the image; `image` unless given.
      caption: feature that holds the captions: a text, a sequence of texts, or a
        sequence of features of which `text` is one; `caption`, `captions` or `text`
        unless given.

    Raises:
      ValueError: if tensorflow_datasets is missing, the dataset cannot be opened or has
        no such feature (near names are offered).
    """

    def __init__(self, source: str, image: str | None, caption: str | None) -> None:
        self._arguments = (source, image, caption)
        self._name, self._split, self._records = open_records(source, image)
        features = list(self._records.dataset_info.features)
        self._image = choose_column(source, features, "image", image, ("image",))
        self._caption = choose_column(source, features, "caption", caption, _CAPTIONS)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Pair:
        record = self._records[index]
        return Pair(self._key(index), bytes(record[self._image]), self._captions(index, record))

    def captions(self, index: int) -> tuple[str, ...]:
        return self._captions(index, self._records[index])

    def identity(self) -> str:
        version = str(self._records.dataset_info.version)
        return digest("tfds", *self._arguments, version, len(self))

    def _key(self, index: int) -> str:
        return f"{self._name}:{self._split}:{index}"

    def _captions(self, index: int, record: dict[str, Any]) -> tuple[str, ...]:
        captions = record_texts(record[self._caption])
        if not captions:
            raise ValueError(f"{self._key(index)}: no caption")
        return captions

    def __reduce__(self) -> tuple[Any, ...]:
        return TfdsPairs, self._arguments
