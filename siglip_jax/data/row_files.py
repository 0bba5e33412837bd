"""Files of rows, a row an item: what does not depend on how a file holds them."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import Any, ClassVar, Protocol

from siglip_jax.data.columns import Wanted
from siglip_jax.data.failures import SettingError
from siglip_jax.data.fetch import fetched
from siglip_jax.data.item import Dataset, Item, Shard, fingerprint
from siglip_jax.data.stamps import contents_of, file_stamp
from siglip_jax.data.storage import Stored


class RowPiece(Protocol):
    """The rows of a shard: so many from `start` on, of the file of this number."""

    @property
    def file(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def rows(self) -> int: ...


class RowFiles(Dataset):
    """Shards of rows of files, each of one file.

    Whoever derives from it sets these attributes, and reads items and pairs.
    """

    _KIND: ClassVar[str]
    _files: list[Stored]
    _wanted: Wanted
    _size: int
    _pieces: Sequence[RowPiece]

    @abstractmethod
    def _items(self, piece: Any) -> Iterator[Item]:
        """The items of the rows of a piece."""

    def shards(self) -> list[Shard]:
        several = self._wanted.only == "texts"
        return [
            Shard(f"{self._files[p.file].name} from row {p.start:,}", None if several else p.rows)
            for p in self._pieces
        ]

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        items = self._items(self._pieces[shard])
        return fetched(item for item in items if keys is None or item.key in keys)

    def stamp(self, shard: int) -> str:
        return file_stamp(self._files[self._pieces[shard].file])

    def stamps(self, shard: int) -> Iterator[tuple[str, str | None]]:
        raise NotImplementedError  # a file has one

    def contents(self) -> str:
        return contents_of([file.where for file in self._files])

    def identity(self) -> str:
        files = [(f.name, f.size, f.stamp) for f in self._files]
        return fingerprint(self._KIND, files, self._wanted.identity(), self._size, len(self))


def refuse_repeated_keys(
    files: Sequence[Stored], keys: Sequence[Any], columns: Sequence[str | None]
) -> None:
    """Raises a ValueError if a row has no key, or two rows of all files have the same.

    Args:
      keys: of each file, as pyarrow has a column; None where there is none.
      columns: that hold them.
    """
    import pyarrow
    import pyarrow.compute

    compute: Any = pyarrow.compute  # its functions are made when it is imported
    for file, own, column in zip(files, keys, columns, strict=True):
        if own is not None and own.null_count:
            row = compute.index(compute.is_null(own), True).as_py()
            raise ValueError(f"{file.name}: row {row:,} has no key in column {column}")
    chunks = [chunk.cast("string") for own in keys if own is not None for chunk in own.chunks]
    if not chunks:
        return
    every = pyarrow.chunked_array(chunks)
    if compute.count_distinct(every).as_py() != len(every):
        counts = compute.value_counts(every)
        first = counts.filter(compute.greater(counts.field("counts"), 1))[0].as_py()
        name = next(column for column in columns if column)
        raise SettingError(
            f"{files[0].name}: {first['values']!r} is {first['counts']} times in column {name}",
            "key_column",
            "name a column with {} in which every value is there once",
        )
