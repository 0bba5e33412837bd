"""Rows of Parquet files, a few row groups a shard."""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from siglip_jax.data.item import Item, Shard
from siglip_jax.data.pair import digest, text_captions
from siglip_jax.data.parquet import check_types
from siglip_jax.jobs.sources.fetch import fetched
from siglip_jax.jobs.sources.named import Columns, several_texts
from siglip_jax.jobs.sources.storage import Stored, is_remote, joined, open_binary, parent
from siglip_jax.optional import from_extra

ENDINGS = (".parquet", ".pq")
# Rows that are decoded at a time, and bytes of a column that are read ahead: pictures may
# have megabytes each, and a row group thousands of them.
_ROWS, _BUFFER = 32, 1 << 20


class _Piece(NamedTuple):
    """Rows of a file from `start` on, in these row groups with so many rows of each.

    `skip` rows at the beginning of the first group are another piece's.
    """

    file: int
    start: int
    groups: tuple[tuple[int, int], ...]
    skip: int = 0

    @property
    def rows(self) -> int:
        return sum(count for _, count in self.groups)


class ParquetRows:
    """A row an item.

    Opening reads what the files say of themselves, and the column of keys if there is one,
    to see that no key is there twice. A shard is as many whole row groups of a file as have
    at most `shard_size` rows, or a part of one; rows are read a few at a time. Memory is
    that of a page, decoded: pyarrow puts up to 1,024 values of a row group into one, whatever
    their sizes, so large pictures belong into small row groups (`datasets` writes 100 rows).

    Args:
      files: .parquet files, each with the columns.
      image: column of bytes, of Hugging Face's structs of bytes and path, or of paths
        relative to the file (or URLs).
      text: column of strings or lists of strings.
      key: column that names the rows; `key` if there is one; otherwise file:row, from 0.
      only: "images" or "texts".
      shard_size: the most rows that are a piece of work.

    Raises:
      ValueError: if a file is damaged, a column is missing or of another type, or a key
        is null or there twice.
    """

    def __init__(
        self,
        files: Sequence[Stored],
        image: str | None,
        text: str | None,
        key: str | None,
        only: str | None,
        shard_size: int,
    ) -> None:
        self._files, self._size = list(files), shard_size
        self._options = [image, text, key, only]
        with ThreadPoolExecutor(16 if len(files) > 1 else 1) as pool:
            headers = list(pool.map(self._header, self._files))
        self._columns = [columns for columns, _, _ in headers]
        self._pieces = [
            piece
            for i, (_, rows, _) in enumerate(headers)
            for piece in _pieces(i, rows, shard_size)
        ]
        if not self._pieces:
            raise ValueError(f"{self._files[0].name}: there are no rows in it")
        _refuse_repeated(self._files, self._columns, [keys for _, _, keys in headers])

    def shards(self) -> list[Shard]:
        return [
            Shard(
                f"{self._files[p.file].name} from row {p.start:,}",
                None if self._options[3] == "texts" else p.rows,
            )
            for p in self._pieces
        ]

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        items = self._items(self._pieces[shard])
        return fetched(item for item in items if keys is None or item.key in keys)

    def identity(self) -> str:
        files = [(f.name, f.size, f.stamp) for f in self._files]
        rows = sum(piece.rows for piece in self._pieces)
        return digest("parquet", files, self._options, self._size, rows)

    def _header(self, file: Stored) -> tuple[Columns, list[int], Any]:
        """What is read of a file, the rows of its groups, and its keys."""
        with _opened(file) as opened:
            schema, metadata = opened.schema_arrow, opened.metadata
            columns = Columns(file.name, schema.names, *self._options)
            check_types(file.name, schema, columns.image, columns.text)
            rows = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
            keys = None
            if columns.key:
                try:
                    keys = opened.read([columns.key]).column(0)
                except (OSError, ValueError) as error:
                    raise _unreadable(file, error) from error
        return columns, rows, keys

    def _items(self, piece: _Piece) -> Iterator[Item]:
        file, columns = self._files[piece.file], self._columns[piece.file]
        row, skip = piece.start, piece.skip
        with _opened(file, buffer_size=_BUFFER, pre_buffer=False) as opened:
            for group, count in piece.groups:
                end = row + count
                try:
                    for values in _rows(opened, group, columns.used(), skip, count):
                        key = values[columns.key] if columns.key else f"{file.name}:{row}"
                        yield from self._item(str(key), file, columns, values)
                        row += 1
                except _Unreadable as error:
                    # How many there are is known, so none is lost without a word.
                    for lost in range(row, end):
                        yield Item(f"{file.name}:{lost}", error=f"{file.name}: row {lost}: {error}")
                row, skip = end, 0

    def _item(
        self, key: str, file: Stored, columns: Columns, values: dict[str, Any]
    ) -> Iterator[Item]:
        texts = text_captions(values[columns.text]) if columns.text else ()
        if not columns.image:
            if texts:
                yield from several_texts(key, texts if self._options[3] == "texts" else texts[:1])
            else:
                yield Item(key, error=f"{key}: no text in column {columns.text}")
            return
        image = values[columns.image]
        if isinstance(image, dict):
            image = image.get("bytes") or image.get("path")
        if not image:
            yield Item(key, error=f"{key}: no picture in column {columns.image}")
            return
        if isinstance(image, str):
            image = joined(parent(file.where), image)
        yield Item(key, image, texts[0] if texts else None)


@contextlib.contextmanager
def _opened(file: Stored, **options: Any) -> Iterator[Any]:
    """pyarrow's ParquetFile.

    Raises:
      ValueError: if it is none, or damaged at its end.
    """
    parquet = from_extra("jobs", "pyarrow.parquet")
    with contextlib.ExitStack() as stack:
        remote = is_remote(file.where)
        source = stack.enter_context(open_binary(file.where)) if remote else file.where
        try:
            opened = stack.enter_context(parquet.ParquetFile(source, **options))
        except (OSError, ValueError) as error:
            raise _unreadable(file, error) from error
        if remote and not source.seekable():
            raise ValueError(
                f"{file.where}: the server gives whole files only, and Parquet is read in parts; "
                "download it first"
            )
        yield opened


class _Unreadable(Exception):
    """Pages of a file are damaged."""


def _rows(
    opened: Any, group: int, columns: list[str], skip: int, count: int
) -> Iterator[dict[str, Any]]:
    """`count` rows of a row group after the first `skip`, few in memory at a time."""
    batches = opened.iter_batches(_ROWS, [group], columns, use_threads=False)
    while count:
        try:
            batch = next(batches)
        except StopIteration:
            raise _Unreadable("it is missing") from None
        except (OSError, ValueError) as error:
            raise _Unreadable(_reason(error)) from error
        passed = min(skip, len(batch))
        skip -= passed
        batch = batch[passed : passed + count]
        count -= len(batch)
        yield from batch.to_pylist()


def _pieces(file: int, rows: Sequence[int], size: int) -> Iterator[_Piece]:
    """Cuts row groups with `rows` rows into pieces of at most `size`.

    >>> [(p.groups, p.skip, p.start) for p in _pieces(0, [2, 2, 2, 5], 4)]
    [(((0, 2), (1, 2)), 0, 0), (((2, 2),), 0, 4), (((3, 4),), 0, 6), (((3, 1),), 4, 10)]
    """
    groups: list[tuple[int, int]] = []
    start = held = 0
    for group, count in enumerate(rows):
        if groups and held + count > size:
            yield _Piece(file, start, tuple(groups))
            groups, start, held = [], start + held, 0
        if count > size:
            for skip in range(0, count, size):
                yield _Piece(file, start + skip, ((group, min(size, count - skip)),), skip)
            start += count
        elif count:
            groups.append((group, count))
            held += count
    if groups:
        yield _Piece(file, start, tuple(groups))


def _refuse_repeated(files: Sequence[Stored], columns: Sequence[Columns], keys: Any) -> None:
    compute, arrow = from_extra("jobs", "pyarrow.compute"), from_extra("jobs", "pyarrow")
    for file, chosen, column in zip(files, columns, keys, strict=True):
        if column is not None and column.null_count:
            row = compute.index(compute.is_null(column), True).as_py()
            raise ValueError(f"{file.name}: row {row:,} has no key in column {chosen.key}")
    chunks = [
        chunk.cast("string") for column in keys if column is not None for chunk in column.chunks
    ]
    if not chunks:
        return
    every = arrow.chunked_array(chunks)
    if compute.count_distinct(every).as_py() != len(every):
        counts = compute.value_counts(every)
        first = counts.filter(compute.greater(counts.field("counts"), 1))[0].as_py()
        name = next(c.key for c in columns if c.key)
        raise ValueError(
            f"{files[0].name}: {first['values']!r} is {first['counts']} times in column {name}; "
            "name a column with key= in which every value is there once"
        )


def _unreadable(file: Stored, error: Exception) -> ValueError:
    return ValueError(f"{file.name}: not a Parquet file that can be read: {_reason(error)}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).partition("\n")[0]
