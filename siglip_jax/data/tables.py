"""Rows of CSV, TSV and JSONL files, and lines of text files."""

import functools
import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from siglip_jax.data.columns import Columns, Wanted, text_captions
from siglip_jax.data.failures import public
from siglip_jax.data.fetch import fetched
from siglip_jax.data.item import Dataset, Item, Pair, Shard, Unique, fingerprint, several_texts
from siglip_jax.data.kept import refuse_not_there, text_types, texts_of
from siglip_jax.data.separated import Lines, Style, header_of, separated, spoken
from siglip_jax.data.stamps import contents_of, item_stamps
from siglip_jax.data.storage import (
    Stored,
    is_remote,
    joined,
    open_binary,
    parent,
    read_bytes,
    size,
)

_LINE = "line"  # the one column of a text file
_BEYOND = None  # under this name in a row: the fields beyond those of the header


class _Piece(NamedTuple):
    """Where a shard begins: file, byte, and the number of its first row; how many rows."""

    file: int
    offset: int
    row: int
    count: int


class _Image(NamedTuple):
    """An image that rows name, where it lies if it does, and in which file the first row is."""

    key: str
    where: str | None
    captions: tuple[str, ...]
    file: int


class TableRows(Dataset):
    """A row an item, or of a text file a line a text.

    Files are read once when they are opened, to see that they are whole, that keys are
    unique and where every shard begins; the rows themselves are not held. As pairs, rows of
    the same image are one, with the captions of all; these are held in memory.

    Args:
      files: .csv, .tsv, .jsonl, or with `plain` text files, of which blank lines are
        left out.
      wanted: columns; that of the image holds paths, relative to the file, or URLs.
      shard_size: the most rows of a shard.
      plain: the files hold a text a line.

    An item's key is that of its row, otherwise its image's path, otherwise file:row
    from 0. One that was there before gets a number.

    Raises:
      ValueError: if a file is not UTF-8, a row is damaged, or a column is missing.
    """

    def __init__(
        self, files: Sequence[Stored], wanted: Wanted, shard_size: int, *, plain: bool = False
    ) -> None:
        self._files, self._wanted, self._size, self._plain = list(files), wanted, shard_size, plain
        self._headers: list[tuple[list[str], Style]] = []
        self._columns: list[Columns] = []
        self._pieces: list[_Piece] = []
        self._signed = False  # URLs hold what is in no key
        self._long = 0  # rows with more fields than columns
        self._again: dict[tuple[int, int], str] = {}  # the keys that had to be changed
        unique = Unique()
        for number in range(len(self._files)):
            self._scan(number, unique)

    def shards(self) -> list[Shard]:
        several = self._wanted.only == "texts" and not self._plain  # texts in a row, perhaps
        return [
            Shard(f"{self._files[p.file].name} from row {p.row:,}", None if several else p.count)
            for p in self._pieces
        ]

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        items = self._items(self._pieces[shard])
        return fetched(item for item in items if keys is None or item.key in keys)

    def stamp(self, shard: int) -> None:
        """Rows have their own."""

    def stamps(self, shard: int) -> Iterator[tuple[str, str | None]]:
        return item_stamps(self._items(self._pieces[shard]))

    def kept(self) -> dict[str, Any]:
        return text_types(self._wanted.keep)

    def contents(self) -> str:
        places = [file.where for file in self._files]
        for piece in self._pieces if any(columns.image for columns in self._columns) else ():
            rows = (self._image(piece.file, values) for _, values in self._rows(piece))
            places += [where for where in rows if where]
        return contents_of(places)

    def _items(self, piece: _Piece) -> Iterator[Item]:
        return (
            item for key, values in self._rows(piece) for item in self._item(key, piece, values)
        )

    def identity(self) -> str:
        files: list[Any] = [(f.name, f.size, f.stamp) for f in self._files]
        if self._signed:
            # With other signatures it is the same table, of another size.
            files = [f.name for f in self._files] + [self._public_rows()]
        rows = sum(piece.count for piece in self._pieces)
        return fingerprint("tables", files, self._wanted.identity(), self._size, rows)

    def _public_rows(self) -> str:
        """A digest of the rows, without what is secret in URLs."""
        digest = hashlib.sha256()
        for piece in self._pieces:
            columns = self._columns[piece.file]
            for key, values in self._rows(piece):
                where = self._image(piece.file, values)
                row = [key, where and public(where), values.get(columns.text)]
                digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Pair:
        key, where, captions, file = self._images[index]
        if where is None:
            raise ValueError(f"{key}: no image in column {self._columns[file].image}")
        return Pair(key, read_bytes(where), captions)

    def key(self, index: int) -> str:
        return self._images[index].key

    def captions(self, index: int) -> tuple[str, ...]:
        return self._images[index].captions

    @functools.cached_property
    def _images(self) -> list["_Image"]:
        """The images, in order; a row that names none is one of its own."""
        found: dict[str, _Image] = {}
        for piece in self._pieces:
            columns = self._columns[piece.file]
            for key, values in self._rows(piece):
                if _BEYOND in values:
                    count = f"{self._long:,} such row{'s' * (self._long > 1)}"
                    raise ValueError(f"{key}: {self._too_long(piece.file, values)} ({count})")
                where = self._image(piece.file, values)
                texts = text_captions(values.get(columns.text))
                one = found.get(where or key) or _Image(key, where, (), piece.file)
                found[where or key] = one._replace(captions=one.captions + texts)
        # One missing image of several is reported when its turn comes; if none is there, now.
        first = [where for _, where, *_ in list(found.values())[:1000] if where]
        if first and not any(is_remote(where) or size(where) is not None for where in first):
            raise ValueError(
                f"{self._files[0].name}: {first[0]} is no file, nor are the images of the rows "
                "after it; paths are relative to the table"
            )
        return list(found.values())

    def _scan(self, number: int, unique: Unique) -> None:
        """Finds the columns, the shards and the repeated keys of a file."""
        file = self._files[number]
        with open_binary(file.where) as opened:
            lines = Lines(opened, file.name)
            header = self._read_header(lines)
            self._headers.append(header)
            start, count, row = lines.offset, 0, -1
            names = dict.fromkeys(header[0])  # of objects, those of all of them
            for row, values in enumerate(self._parse(lines, header)):
                if self._wanted.keep and not header[0]:
                    names.update(dict.fromkeys(values))
                self._long += _BEYOND in values
                if row == 0:
                    wanted = Wanted(text=_LINE, only="texts") if self._plain else self._wanted
                    self._columns.append(Columns(file.name, header[0] or values, wanted))
                key = self._key(number, row, values)
                name = values.get(self._columns[number].image)
                self._signed = self._signed or (isinstance(name, str) and public(name) != name)
                if (name := unique(key)) != key:
                    self._again[number, row] = name
                count += 1
                if count == self._size:
                    self._pieces.append(_Piece(number, start, row + 1 - count, count))
                    start, count = lines.offset, 0
            if count:
                self._pieces.append(_Piece(number, start, row + 1 - count, count))
            if row < 0:
                raise ValueError(f"{file.name}: there are no rows in it")
        refuse_not_there(file.name, names, self._wanted.keep)

    def _rows(self, piece: _Piece) -> Iterator[tuple[str, dict[Any, Any]]]:
        """Key and values of the rows of a shard."""
        file = self._files[piece.file]
        with open_binary(file.where) as opened:
            opened.seek(piece.offset)
            lines = Lines(opened, file.name)
            rows = self._parse(lines, self._headers[piece.file])
            for row, values in zip(range(piece.row, piece.row + piece.count), rows, strict=False):
                key = self._again.get((piece.file, row)) or self._key(piece.file, row, values)
                yield key, values

    def _item(self, key: str, piece: _Piece, values: dict[Any, Any]) -> Iterator[Item]:
        if _BEYOND in values:  # and no one knows which field is whose
            yield Item(key, error=f"{key}: {self._too_long(piece.file, values)}")
            return
        columns = self._columns[piece.file]
        kept = texts_of(values, self._wanted.keep)
        texts = text_captions(values.get(columns.text)) if columns.text else ()
        if columns.image is None:
            if not texts:
                yield Item(key, error=f"{key}: no text in column {columns.text}", kept=kept)
            else:
                several = self._wanted.only == "texts"
                yield from several_texts(key, texts if several else texts[:1], kept)
        elif where := self._image(piece.file, values):
            # All that is known of a URL in a table is its address.
            stamp = "" if is_remote(where) else None
            yield Item(key, where, texts[0] if texts else None, stamp=stamp, kept=kept)
        else:
            yield Item(key, error=f"{key}: no image in column {columns.image}", kept=kept)

    def _too_long(self, file: int, values: dict[Any, Any]) -> str:
        """Why a row cannot be read that has more fields than there are columns."""
        (names, style), beyond = self._headers[file], values[_BEYOND]
        fields = len(names) + len(beyond)
        return (
            f"{fields} fields in {len(names)} columns, beyond them {beyond[0]!r}; "
            f'put a field that holds {spoken(style.separator)} in quotation marks: "..."'
        )

    def _image(self, file: int, values: dict[Any, Any]) -> str | None:
        """Where the image of a row lies."""
        name = values.get(self._columns[file].image)
        if not isinstance(name, str) or not name:
            return None
        return joined(parent(self._files[file].where), name)

    def _key(self, file: int, row: int, values: dict[Any, Any]) -> str:
        columns = self._columns[file]
        name = values.get(columns.key or columns.image)
        return public(str(name)) if name not in (None, "") else f"{self._files[file].name}:{row}"

    def _read_header(self, lines: Lines) -> tuple[list[str], Style]:
        if self._plain or lines.name.lower().endswith((".jsonl", ".ndjson")):
            return [], Style()
        return header_of(lines, self._wanted.separator)

    def _parse(self, lines: Lines, header: tuple[list[str], Style]) -> Iterator[dict[Any, Any]]:
        names, style = header
        if self._plain:
            return ({_LINE: text} for line in lines if (text := line.strip()))
        if not names:
            return _objects(lines)
        return (_named(names, row) for row in separated(lines, style))


class TextStrings:
    """Texts that are at hand, each its own key.

    >>> [item.key for item in TextStrings(["a dog", "a cat", "a dog"], 2).read(1)]
    ['a dog#2']
    """

    def __init__(self, texts: Sequence[str], shard_size: int = 4096) -> None:
        unique = Unique()
        self._items = [Item(unique(text), text=text) for text in texts]
        self._size = shard_size

    def shards(self) -> list[Shard]:
        total, size = len(self._items), self._size
        return [
            Shard(f"texts {start + 1:,} to {min(start + size, total):,}", min(size, total - start))
            for start in range(0, total, size)
        ]

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        part = self._items[shard * self._size : (shard + 1) * self._size]
        return (item for item in part if keys is None or item.key in keys)

    def stamp(self, shard: int) -> None:
        """Texts have their own."""

    def stamps(self, shard: int) -> Iterator[tuple[str, str | None]]:
        return item_stamps(self.read(shard))

    def contents(self) -> str:
        return self.identity()

    def identity(self) -> str:
        return fingerprint("texts", [item.text for item in self._items], self._size)


def _named(names: list[str], row: list[str]) -> dict[Any, Any]:
    values: dict[Any, Any] = dict(zip(names, row, strict=False))
    if any(beyond := row[len(names) :]):
        values[_BEYOND] = beyond
    return values


def _objects(lines: Lines) -> Iterator[dict[str, Any]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            where = f"before byte {lines.offset:,}"
            raise ValueError(f"{lines.name}: the line {where} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{lines.name}: expected an object a line, got {line[:40]!r}")
        yield row
