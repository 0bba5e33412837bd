"""Rows of Arrow files, as Hugging Face's `datasets` writes them with `save_to_disk`."""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from siglip_jax.data.columns import (
    Columns,
    Wanted,
    noted_classes,
    refuse_absent,
    text_captions,
)
from siglip_jax.data.item import Item, Pair, several_texts
from siglip_jax.data.kept import common_types, kept_rows, schema_types
from siglip_jax.data.row_files import RowFiles, refuse_repeated_keys
from siglip_jax.data.storage import Stored, is_remote, joined, local, parent, read_bytes


class _Piece(NamedTuple):
    file: int
    start: int
    rows: int


class ArrowRows(RowFiles):
    """A row an item, `shard_size` to a shard; the files are mapped, not read.

    Args:
      files: .arrow, streams or files of record batches, with the same columns.
      wanted: columns, of the types that they have in Parquet.
      shard_size: the most rows of a shard, which is of one file.

    Keys are a column's values, or file:row from 0.

    Raises:
      ValueError: if a file is damaged, remote, or lacks a column; if a key is null or there twice.
    """

    _KIND = "arrow"

    def __init__(self, files: Sequence[Stored], wanted: Wanted, shard_size: int) -> None:
        self._files, self._wanted, self._size = list(files), wanted, shard_size
        self._map()
        self._pieces = [
            _Piece(number, start, min(shard_size, len(table) - start))
            for number, table in enumerate(self._tables)
            for start in range(0, len(table), shard_size)
        ]
        if not self._pieces:
            raise ValueError(f"{self._files[0].name}: there are no rows in it")
        if wanted.only != "pairs":
            # Of pairs several may well be of one key.
            named = [columns.key for columns in self._columns]
            keys = [t.column(c) if c else None for t, c in zip(self._tables, named, strict=True)]
            refuse_repeated_keys(self._files, keys, named)

    def values(self, name: str) -> Iterator[tuple[str, Any]]:
        """Of every row its key and what is in the column `name`, which may hold any type."""
        for number, table in enumerate(self._tables):
            refuse_absent(self._files[number].name, table.column_names, name)
            for row, value in enumerate(table.column(name)):
                yield self._key(number, row), value.as_py()

    def kept(self) -> dict[str, Any]:
        return self._kept

    def class_names(self, columns: Sequence[str]) -> list[str] | None:
        """What `datasets` noted as the names of the classes of the first of these columns."""
        return noted_classes(self._tables[0].schema, columns)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Pair:
        number, row = self._row(index)
        image = self._image(number, row)
        if not image:
            raise ValueError(f"{self.key(index)}: no image in column {self._columns[number].image}")
        data = read_bytes(image) if isinstance(image, str) else image
        return Pair(self.key(index), data, self.captions(index))

    def key(self, index: int) -> str:
        return self._key(*self._row(index))

    def captions(self, index: int) -> tuple[str, ...]:
        number, row = self._row(index)
        return self._texts(number, row)

    def _row(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._starts, index) - 1
        return number, index - self._starts[number]

    def _key(self, number: int, row: int) -> str:
        column = self._columns[number].key
        key = self._tables[number].column(column)[row].as_py() if column else None
        return f"{self._files[number].name}:{row}" if key is None else str(key)

    def _texts(self, number: int, row: int) -> tuple[str, ...]:
        column = self._columns[number].text
        return text_captions(self._tables[number].column(column)[row].as_py()) if column else ()

    def _image(self, number: int, row: int) -> bytes | str | None:
        """The bytes, or where they lie."""
        value = self._tables[number].column(str(self._columns[number].image))[row].as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        here = parent(self._files[number].where)
        return joined(here, value) if value and isinstance(value, str) else value

    def _items(self, piece: _Piece) -> Iterator[Item]:
        for row in range(piece.start, piece.start + piece.rows):
            kept = self._kept_of(piece.file, row) if self._kept else None
            for item in self._of_row(piece.file, row):
                item.kept = kept
                yield item

    def _kept_of(self, number: int, row: int) -> dict[str, Any] | None:
        table = self._tables[number]
        own = {name: table.column(name).slice(row, 1).combine_chunks() for name in self._kept}
        return kept_rows(own, self._kept)[0]

    def _of_row(self, number: int, row: int) -> Iterator[Item]:
        columns, key, texts = self._columns[number], self._key(number, row), ()
        if columns.text:
            texts = self._texts(number, row)
        if not columns.image:
            several = self._wanted.only == "texts"
            yield from several_texts(key, texts if several else texts[:1])
            if not texts:
                yield Item(key, error=f"{key}: no text in column {columns.text}")
        elif image := self._image(number, row):
            yield Item(key, image, texts[0] if texts else None)
        else:
            yield Item(key, error=f"{key}: no image in column {columns.image}")

    def _map(self) -> None:
        self._tables = [_table(file) for file in self._files]
        self._columns = [
            Columns(file.name, table.column_names, self._wanted)
            for file, table in zip(self._files, self._tables, strict=True)
        ]
        named = zip(self._files, self._tables, self._columns, strict=True)
        self._kept = common_types(
            (file.name, schema_types(file.name, table.schema, self._wanted.keep, columns.image))
            for file, table, columns in named
        )
        self._starts = list(itertools.accumulate(map(len, self._tables), initial=0))

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_tables"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()


def _table(file: Stored) -> Any:
    import pyarrow
    import pyarrow.ipc

    if is_remote(file.where):
        raise ValueError(f"{file.name}: .arrow files are read from this machine; download it first")
    try:
        mapped = pyarrow.memory_map(str(Path(local(file.where))))
        try:
            table = pyarrow.ipc.open_stream(mapped).read_all()
        except pyarrow.ArrowInvalid:
            mapped.seek(0)
            table = pyarrow.ipc.open_file(mapped).read_all()
        # What a damaged file points at lies anywhere: not looked at, it would end the process.
        table.validate(full=True)
        _read_names(table.schema)
        return table
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file.name}: cannot be read: {str(error).splitlines()[0]}") from error


def _read_names(fields: Any) -> None:
    """Raises a UnicodeDecodeError for a name that is no text, however deep: none is looked at."""
    for field in fields:
        _ = field.name
        inside = field.type
        _read_names(inside.field(number) for number in range(inside.num_fields))
