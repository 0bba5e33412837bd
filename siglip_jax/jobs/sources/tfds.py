"""Records of TensorFlow Datasets, without TensorFlow."""

from collections.abc import Collection, Iterator
from typing import Any

from siglip_jax.data.item import Item, Shard
from siglip_jax.data.pair import digest
from siglip_jax.data.tfds import open_records, record_texts
from siglip_jax.jobs.sources.named import Columns, several_texts


class TfdsRecords:
    """The records of a split, which must be prepared as array_record.

    Args:
      spec: `tfds:NAME` or `tfds:NAME:SPLIT`; the split is train unless given.
      image, text: features; text may be a string, a sequence, or a sequence of features
        of which `text` is one.
      only: "images" or "texts".
      shard_size: how many records are a piece of work.

    Keys are name:split:index.

    Raises:
      ValueError: if tensorflow_datasets is missing, or the dataset or a feature.
    """

    def __init__(
        self, spec: str, image: str | None, text: str | None, only: str | None, shard_size: int
    ) -> None:
        self._arguments = (spec, image, text, only, shard_size)
        self._name, self._split, self._records = open_records(spec, image)
        features = list(self._records.dataset_info.features)
        asked = image or ("image" if "image" in features else None)
        self._columns = Columns(spec, features, asked, text, None, only)
        self._only, self._size = only, shard_size

    def shards(self) -> list[Shard]:
        total, size = len(self._records), self._size
        return [
            Shard(
                f"{self._name}:{self._split} from record {start:,}",
                None if self._only == "texts" else min(size, total - start),
            )
            for start in range(0, total, size)
        ]

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        start = shard * self._size
        for index in range(start, min(start + self._size, len(self._records))):
            key = f"{self._name}:{self._split}:{index}"
            # A record may hold several texts, whose keys begin alike.
            if keys is None or any(k == key or k.startswith(f"{key}/") for k in keys):
                items = self._items(key, index)
                yield from (item for item in items if keys is None or item.key in keys)

    def identity(self) -> str:
        version = str(self._records.dataset_info.version)
        return digest("tfds", *self._arguments, version, len(self._records))

    def _items(self, key: str, index: int) -> Iterator[Item]:
        try:
            record = self._records[index]
        # A damaged record, by whatever its reader calls it.
        except Exception as error:
            yield Item(key, error=f"{key}: cannot be read: {str(error).partition(chr(10))[0]}")
            return
        texts = record_texts(record[self._columns.text]) if self._columns.text else ()
        if self._columns.image:
            image = bytes(record[self._columns.image])
            yield Item(key, image, texts[0] if texts else None)
        elif texts:
            yield from several_texts(key, texts)
        else:
            yield Item(key, error=f"{key}: no text in feature {self._columns.text}")

    def __reduce__(self) -> tuple[Any, ...]:
        return TfdsRecords, self._arguments
