"""Records of TensorFlow Datasets, without TensorFlow."""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from siglip_jax.data.columns import Columns, Wanted, refuse_absent, text_captions
from siglip_jax.data.failures import SettingError
from siglip_jax.data.item import Dataset, Item, Pair, Shard, fingerprint, several_texts
from siglip_jax.data.kept import refuse_not_there
from siglip_jax.messages import optional_package

# A version is part of the name, and a split may be cut: tfds:coco_captions:1.1.0:train[:50%].
_SPEC = re.compile(r"tfds:([^:\[]+(?::\d[\d.*]*)?)(?::(.+))?")


class TfdsRecords(Dataset):
    """The records of a split, which must be prepared as array_record.

    A record is read whole for its captions too, so that pairs without a caption show when
    their turn comes, as images that cannot be read do.

    Args:
      spec: `tfds:NAME` or `tfds:NAME:SPLIT`; the split is train unless given.
      wanted: features; text may be a string, a sequence, or a sequence of features
        of which `text` is one.
      shard_size: the most records of a shard.

    Keys are name:split:index.

    Raises:
      ValueError: if tensorflow_datasets is missing, or the dataset or a feature.
    """

    def __init__(self, spec: str, wanted: Wanted, shard_size: int) -> None:
        self._arguments = (spec, wanted, shard_size)
        self._name, self._split, self._records = _opened(spec, wanted.image)
        features = list(self._records.dataset_info.features)
        usual = "image" in features or wanted.only in ("images", "pairs")
        asked = wanted._replace(image=wanted.image or ("image" if usual else None))
        self._columns = Columns(spec, features, asked)
        self._wanted, self._size = wanted, shard_size
        refuse_not_there(spec, features, wanted.keep)
        self._kept = {name: self._type(name) for name in wanted.keep}

    def shards(self) -> list[Shard]:
        total, size = len(self._records), self._size
        several = self._wanted.only == "texts"
        return [
            Shard(
                f"{self._name}:{self._split} from record {start:,}",
                None if several else min(size, total - start),
            )
            for start in range(0, total, size)
        ]

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        start = shard * self._size
        for index in range(start, min(start + self._size, len(self._records))):
            key = self.key(index)
            # A record may hold several texts, whose keys begin alike.
            if keys is None or any(k == key or k.startswith(f"{key}/") for k in keys):
                yield from (item for item in self._items(index) if keys is None or item.key in keys)

    def stamp(self, shard: int) -> None:
        """A dataset of TensorFlow Datasets does not change under its name."""

    def stamps(self, shard: int) -> Iterator[tuple[str, str | None]]:
        raise ValueError(
            f"{self._name}:{self._split}: an index of TensorFlow Datasets cannot be updated; embed "
            "into a new folder"
        )

    def contents(self) -> str:
        return self.identity()

    def identity(self) -> str:
        spec, wanted, size = self._arguments
        arguments = (spec, wanted.image, wanted.text, wanted.only, size)
        version = str(self._records.dataset_info.version)
        return fingerprint("tfds", *arguments, version, len(self._records))

    def values(self, name: str) -> Iterator[tuple[str, Any]]:
        """Of every record its key and its feature `name`, which may be of any type.

        Raises:
          ValueError: if there is no such feature, or a record is damaged.
        """
        features = list(self._records.dataset_info.features)
        refuse_absent(f"{self._name}:{self._split}", features, name)
        for index in range(len(self._records)):
            yield self.key(index), self._record(index)[name]

    def kept(self) -> dict[str, Any]:
        return self._kept

    def _type(self, name: str) -> Any:
        """Of a feature that is one number or text, in pyarrow."""
        import pyarrow

        feature = self._records.dataset_info.features[name]
        if tuple(getattr(feature, "shape", (0,))) != ():
            raise SettingError(
                f"{self._name}: feature {name} is neither one number nor one text",
                "keep",
                "leave it out of {}",
            )
        kind = np.dtype(feature.np_dtype)
        return pyarrow.string() if kind.kind in "OSU" else pyarrow.from_numpy_dtype(kind)

    def _kept_of(self, record: dict[Any, Any]) -> dict[str, Any] | None:
        found = {name: record[name] for name in self._kept}
        plain = {n: np.asarray(v).item() for n, v in found.items()}
        return {
            n: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for n, v in plain.items()
        } or None

    def class_names(self, names: Sequence[str]) -> list[str] | None:
        """The names of the classes of the first of these features that has any."""
        features = self._records.dataset_info.features
        found = (getattr(features[name], "names", None) for name in names if name in features)
        return next((list(each) for each in found if each), None)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Pair:
        record = self._record(index)
        return Pair(self.key(index), bytes(record[self._columns.image]), self._texts(index, record))

    def key(self, index: int) -> str:
        return f"{self._name}:{self._split}:{index}"

    def captions(self, index: int) -> tuple[str, ...]:
        return self._texts(index, self._record(index))

    def _record(self, index: int) -> dict[Any, Any]:
        try:
            return self._records[index]
        # A damaged record, by whatever its reader calls it.
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{self.key(index)}: cannot be read: {reason}") from error

    def _texts(self, index: int, record: dict[Any, Any]) -> tuple[str, ...]:
        texts = record_texts(record[self._columns.text])
        if not texts:
            raise ValueError(f"{self.key(index)}: no text in feature {self._columns.text}")
        return texts

    def _items(self, index: int) -> Iterator[Item]:
        key, kept = self.key(index), None
        try:
            record = self._record(index)
            kept = self._kept_of(record)
            if self._columns.image:
                texts = record_texts(record[self._columns.text]) if self._columns.text else ()
                image = bytes(record[self._columns.image])
                yield Item(key, image, texts[0] if texts else None, kept=kept)
            else:
                yield from several_texts(key, self._texts(index, record), kept)
        except ValueError as error:
            yield Item(key, error=str(error), kept=kept)

    def __reduce__(self) -> tuple[Any, ...]:
        return TfdsRecords, self._arguments


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


def _opened(spec: str, image: str | None) -> tuple[str, str, Any]:
    """The name of a prepared dataset, the split, and its records, in random access."""
    parts = _SPEC.fullmatch(spec)
    if parts is None:
        raise ValueError(f"{spec}: expected tfds:NAME or tfds:NAME:SPLIT")
    name, split = parts[1], parts[2] or "train"
    tfds = optional_package(
        "tensorflow_datasets",
        "tensorflow-datasets array_record",
        name=f"{spec}: tensorflow_datasets",
    )
    # The bytes of the file, so that it is decoded as every other image is.
    encoded = {image or "image": tfds.decode.SkipDecoding()}
    try:
        return name, split, tfds.data_source(name, split=split, decoders=encoded)
    # Its errors are of many kinds, and some messages are pages long.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{spec}: cannot be opened: {reason}") from error
