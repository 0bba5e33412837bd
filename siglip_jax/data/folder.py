"""Pairs from a folder of pictures."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from siglip_jax.data.pair import (
    Pair,
    choose_column,
    digest,
    names_and_sizes,
    read_image,
    refuse_missing,
    text_captions,
)

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_TABLES = tuple(
    f"{name}.{kind}" for name in ("captions", "metadata") for kind in ("csv", "tsv", "jsonl")
)
_IMAGE, _CAPTION = ("file_name", "image"), ("caption", "captions", "text")


class FolderPairs:
    """Pairs of a folder's pictures and the captions beside them.

    A table in the folder says which pictures there are: captions or metadata, as .csv,
    .tsv or .jsonl. Rows of the same picture are captions of one pair, and a cell of a
    .jsonl may hold a list. Without a table every .jpg, .jpeg, .png and .webp, in folders
    within too, needs a .txt of the same name, with one caption a line.

    Args:
      folder: where to look.
      image: column of the file names, which are relative to the folder; `file_name` or
        `image` unless given.
      caption: column of the captions; `caption`, `captions` or `text` unless given.

    Raises:
      ValueError: if there are no pictures, one that the table names is missing, a table
        lacks a column (near names are offered), or pictures have no caption.
    """

    def __init__(self, folder: Path, image: str | None, caption: str | None) -> None:
        self._folder, self._columns = folder, [image, caption]
        table = next((folder / name for name in _TABLES if (folder / name).is_file()), None)
        if table is not None:
            found, source = _from_table(table, image, caption), table
        else:
            found, source = _from_texts(folder), folder
        refuse_missing(source, "caption", [n for n, t in found.items() if not t], len(found))
        self._names, self._captions = list(found), list(found.values())

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Pair:
        name = self._names[index]
        return Pair(name, read_image(self._folder / name), self._captions[index])

    def captions(self, index: int) -> tuple[str, ...]:
        return self._captions[index]

    def identity(self) -> str:
        files = names_and_sizes(self._folder / name for name in self._names)
        letters = sum(len(text) for texts in self._captions for text in texts)
        return digest("folder", files, self._columns, letters)


def _from_texts(folder: Path) -> dict[str, tuple[str, ...]]:
    """Picture to captions, from a .txt beside each."""
    pictures = sorted(f for f in folder.rglob("*") if f.suffix.lower() in _SUFFIXES)
    if not pictures:
        raise ValueError(
            f"{folder}: no .tar, .parquet or pictures ({', '.join(sorted(_SUFFIXES))}) "
            "in this folder"
        )
    found: dict[str, tuple[str, ...]] = {}
    for picture in pictures:
        text = picture.with_suffix(".txt")
        lines = _text(text).splitlines() if text.is_file() else []
        found[picture.relative_to(folder).as_posix()] = text_captions(lines)
    return found


def _from_table(table: Path, image: str | None, caption: str | None) -> dict[str, tuple[str, ...]]:
    """Picture to captions, from the rows of a table."""
    rows = _json_rows(table) if table.suffix == ".jsonl" else _separated_rows(table)
    if not rows:
        raise ValueError(f"{table}: there are no rows in it")
    image_column = choose_column(table, rows[0], "image", image, _IMAGE)
    caption_column = choose_column(table, rows[0], "caption", caption, _CAPTION)
    found: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(rows, 1):
        name = row.get(image_column)
        if not isinstance(name, str) or not name:
            raise ValueError(f"{table}: row {number}: no file name in column {image_column}")
        found[name] = found.get(name, ()) + text_captions(row.get(caption_column))
    missing = [name for name in found if not (table.parent / name).is_file()]
    refuse_missing(table, "file", missing, len(found))
    return found


def _separated_rows(table: Path) -> list[dict[str, Any]]:
    tabs = table.suffix == ".tsv"
    # A tab-separated caption may hold a lone quotation mark, which is no quoting there.
    quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    lines = io.StringIO(_text(table), newline="")
    return list(csv.DictReader(lines, delimiter="\t" if tabs else ",", quoting=quoting))


def _json_rows(table: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_text(table).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{table}: line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{table}: line {number}: expected an object, got {line[:40]!r}")
        rows.append(row)
    return rows


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{file}: cannot be read: {reason}") from error
