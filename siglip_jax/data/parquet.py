"""Rows of Parquet files, a few row groups a shard."""

import bisect
import collections
import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from siglip_jax.data.columns import Columns, Wanted, noted_classes, refuse_absent, text_captions
from siglip_jax.data.item import Item, Pair, several_texts
from siglip_jax.data.kept import common_types, schema_types
from siglip_jax.data.parquet_file import (
    Header,
    Piece,
    check_claims,
    check_types,
    cut,
    opened_parquet,
)
from siglip_jax.data.parquet_values import (
    BUFFER,
    DamagedError,
    DamagedRowError,
    Opened,
    UnreadableError,
    read_column,
    read_rows,
)
from siglip_jax.data.row_files import RowFiles, refuse_repeated_keys
from siglip_jax.data.storage import Stored, joined, parent, read_bytes

_CACHE_BYTES = 1 << 30  # of images in row groups, for random access
_OWN = ("_lock", "_cache", "_damaged")  # of a process


class ParquetRows(RowFiles):
    """A row an item.

    Opening reads what the files say of themselves, and the column of keys if there is one,
    to see that no key of an item is there twice. A shard is as many whole row groups of a file
    as have at most `shard_size` rows, or a part of one; rows are read a few at a time. Memory
    is that of a page, decoded: pyarrow puts up to 1,024 values of a row group into one,
    whatever their sizes, so large images belong into small row groups (`datasets` writes 100
    rows).

    As pairs, captions and keys are held in memory. Images are read a row group at a time, and
    the groups used last are kept, up to 1 GiB, so that smaller data are read once. Shuffled
    access to more than that reads a whole row group for nearly every image: write large data
    in small row groups, or as webdataset shards.

    Args:
      files: .parquet files, each with the columns.
      wanted: columns. The image's holds bytes, Hugging Face's structs of bytes and path, or
        paths relative to the file (or URLs); the text's strings or lists of strings. `key`
        names the rows; otherwise file:row does, from 0.
      shard_size: the most rows of a shard.

    Raises:
      ValueError: if a file is damaged, a column is missing or of another type, or a key
        is null or there twice.
    """

    _KIND = "parquet"

    def __init__(self, files: Sequence[Stored], wanted: Wanted, shard_size: int) -> None:
        self._files, self._wanted, self._size = list(files), wanted, shard_size
        with ThreadPoolExecutor(16 if len(files) > 1 else 1) as pool:
            self._headers = list(pool.map(self._header, self._files))
        self._kept = common_types(
            (file.name, header.kept) for file, header in zip(files, self._headers, strict=True)
        )
        self._pieces = [
            piece
            for i, header in enumerate(self._headers)
            for piece in cut(i, header.rows, shard_size)
        ]
        self._length = sum(piece.rows for piece in self._pieces)
        if not self._pieces:
            raise ValueError(f"{self._files[0].name}: there are no rows in it")
        if wanted.only != "pairs":
            # Of pairs several may well be of one key.
            keys = [header.keys for header in self._headers]
            named = [header.columns.key for header in self._headers]
            refuse_repeated_keys(self._files, keys, named)
            self._headers = [header._replace(metadata=None, keys=None) for header in self._headers]
        self._forget()

    def values(self, name: str) -> Iterator[tuple[str, Any]]:
        """Of every row its key and what is in the column `name`, which may hold any type.

        Raises:
          ValueError: if there is no such column, or it is damaged.
        """
        for file, header in zip(self._files, self._headers, strict=True):
            with opened_parquet(file, header.starts) as opened:
                names = opened.parquet.schema_arrow.names
                refuse_absent(file.name, names, name)
                values = read_column(opened, name)
                keys = read_column(opened, header.columns.key) if header.columns.key else None
            for row, value in enumerate(values):
                key = keys[row].as_py() if keys is not None else None
                yield f"{file.name}:{row}" if key is None else str(key), value.as_py()

    def kept(self) -> dict[str, Any]:
        return self._kept

    def class_names(self, columns: Sequence[str]) -> list[str] | None:
        """What Hugging Face's `datasets` noted as the names of the classes of a column."""
        with opened_parquet(self._files[0], self._headers[0].starts) as opened:
            return noted_classes(opened.parquet.schema_arrow, columns)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Pair:
        file, group, first, start = self._group(index)
        key = self.key(index)
        images = self._images(file, group)
        if isinstance(images, str):
            raise DamagedRowError(self._files[file], first + index - start, images)
        image = _place(self._files[file], images[index - start].as_py())
        if not image:
            column = self._headers[file].columns.image
            raise ValueError(f"{key}: no image in column {column}")
        if isinstance(image, str):
            image = read_bytes(image)
        return Pair(key, image, self.captions(index))

    def key(self, index: int) -> str:
        file, _, first, start = self._group(index)
        row, keys = first + index - start, self._headers[file].keys
        key = keys[row].as_py() if keys is not None else None
        return f"{self._files[file].name}:{row}" if key is None else str(key)

    def captions(self, index: int) -> tuple[str, ...]:
        file, group, first, start = self._group(index)
        texts, row = self._texts[file][group], first + index - start
        if isinstance(texts, str):
            raise DamagedRowError(self._files[file], row, texts)
        try:
            return text_captions(texts[index - start].as_py())
        except UnicodeDecodeError as error:
            raise DamagedRowError(self._files[file], row, str(error)) from error

    @functools.cached_property
    def _texts(self) -> list[list[Any]]:
        """The captions of each row group of each file, as pyarrow has them, or why not."""
        return [self._captions(*one) for one in zip(self._files, self._headers, strict=True)]

    def _captions(self, file: Stored, header: Header) -> list[Any]:
        _, text = header.columns.pair()
        with opened_parquet(file, header.starts, metadata=header.metadata) as opened:
            with contextlib.suppress(DamagedError):
                column, row, found = read_column(opened, text), 0, []
                for count in header.rows:
                    found.append(column.slice(row, count).combine_chunks())
                    row += count
                return found
            # Some of it is damaged.
            groups = [_of_group(opened, text, group) for group in range(len(header.rows))]
            return [g if isinstance(g, str) else g.combine_chunks() for g in groups]

    @functools.cached_property
    def _groups(self) -> tuple[list[int], list[tuple[int, int, int, int]]]:
        """Where the row groups start: the index, and file, group, row in the file, index."""
        groups, index = [], 0
        for file, header in enumerate(self._headers):
            row = 0
            for group, count in enumerate(header.rows):
                groups.append((file, group, row, index))
                row, index = row + count, index + count
        return [start for *_, start in groups], groups

    def _group(self, index: int) -> tuple[int, int, int, int]:
        if not 0 <= index < self._length:
            raise IndexError(index)
        starts, groups = self._groups
        return groups[bisect.bisect_right(starts, index) - 1]

    def _images(self, file: int, group: int) -> Any:
        """The images of one row group, from the cache or the file, or why not."""
        with self._lock:
            if (file, group) in self._damaged:
                return self._damaged[file, group]
            if (file, group) not in self._cache:
                header = self._headers[file]
                image, _ = header.columns.pair()
                where, metadata = self._files[file], header.metadata
                with opened_parquet(where, header.starts, metadata=metadata) as opened:
                    found = _of_group(opened, image, group)
                if isinstance(found, str):
                    return self._damaged.setdefault((file, group), found)
                self._cache[file, group] = found
                held = sum(c.nbytes for c in self._cache.values())
                while held > _CACHE_BYTES and len(self._cache) > 1:
                    held -= self._cache.popitem(last=False)[1].nbytes
            self._cache.move_to_end((file, group))
            return self._cache[file, group]

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._cache: collections.OrderedDict[tuple[int, int], Any] = collections.OrderedDict()
        self._damaged: dict[tuple[int, int], str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in _OWN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _header(self, file: Stored) -> Header:
        starts: list[int] = []
        with opened_parquet(file, starts) as opened:
            schema, metadata = opened.parquet.schema_arrow, opened.parquet.metadata
            columns = Columns(file.name, schema.names, self._wanted)
            check_types(file.name, schema, columns)
            rows = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
            check_claims(file, metadata)
            keys = read_column(opened, columns.key) if columns.key else None
            kept = schema_types(file.name, schema, self._wanted.keep, columns.image)
        return Header(columns, rows, metadata, keys, starts, kept)

    def _items(self, piece: Piece) -> Iterator[Item]:
        file, header = self._files[piece.file], self._headers[piece.file]
        columns, row, skip = header.columns, piece.start, piece.skip
        reading = opened_parquet(file, header.starts, buffer_size=BUFFER, pre_buffer=False)
        with reading as opened:
            for group, count in piece.groups:
                end = row + count
                try:
                    rows = read_rows(opened, group, columns.used(), skip, count, self._kept)
                    for values, kept in rows:
                        key = values[columns.key] if columns.key else f"{file.name}:{row}"
                        for item in self._item(str(key), file, columns, values):
                            item.kept = kept
                            yield item
                        row += 1
                except UnreadableError as error:
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
                several = self._wanted.only == "texts"
                yield from several_texts(key, texts if several else texts[:1])
            else:
                yield Item(key, error=f"{key}: no text in column {columns.text}")
        elif image := _place(file, values[columns.image]):
            yield Item(key, image, texts[0] if texts else None)
        else:
            yield Item(key, error=f"{key}: no image in column {columns.image}")


def _of_group(opened: Opened, column: str, group: int) -> Any:
    """A column of a row group, or why it cannot be read."""
    try:
        return read_column(opened, column, [group])
    except DamagedError as error:
        return error.reason


def _place(file: Stored, value: Any) -> bytes | str | None:
    """The bytes of an image or where it lies, of what a row of a file holds."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    return joined(parent(file.where), value) if value and isinstance(value, str) else value
