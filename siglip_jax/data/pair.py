"""One picture with its captions, and what a dataset of such pairs offers."""

import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Pair(NamedTuple):
    """A picture and its captions.

    Attributes:
      key: what messages call it, such as its file name.
      image: the bytes of an image file.
      captions: at least one.
    """

    key: str
    image: bytes
    captions: tuple[str, ...]


@runtime_checkable
class Pairs(Protocol):
    """A dataset of pairs with random access.

    It can be pickled, so that worker processes open their own, and read by several
    threads at once.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair:
        """The pair at `index`, from 0.

        Raises:
          ValueError: if its image cannot be read.
        """

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions at `index`, without reading the image."""

    def identity(self) -> str:
        """A short digest of what the data are, so that a resumed run notices others."""


def captions_of(pairs: Pairs) -> list[tuple[str, ...]]:
    """The captions of all pairs, in order, without reading an image."""
    return [pairs.captions(index) for index in range(len(pairs))]


def digest(*parts: Any) -> str:
    """A short digest of plain JSON values.

    >>> digest("parquet", [["a.parquet", 120]], 3)
    '38e646ff6bc6c0be'
    """
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def names_and_sizes(files: Iterable[Path]) -> list[tuple[str, int | None]]:
    """What an identity says of files: the folder may move, the files may not change."""
    return [(file.name, file.stat().st_size if file.is_file() else None) for file in files]


def text_captions(value: Any) -> tuple[str, ...]:
    """The captions in a string or a list of strings; blank ones are left out.

    >>> text_captions([" a dog", ""]), text_captions(None)
    (('a dog',), ())
    """
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(v.strip() for v in values if isinstance(v, str) and v.strip())


def read_image(file: Path) -> bytes:
    """The bytes of an image file.

    Raises:
      ValueError: one line that names the file.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror or error}") from error


def choose_column(
    source: object, columns: Iterable[str], what: str, given: str | None, usual: Sequence[str]
) -> str:
    """The column that holds `what`: the given one, or the first usual one that there is.

    Raises:
      ValueError: if there is none; names the columns, and one that is called nearly so.
    """
    columns, wanted = list(columns), [given] if given else usual
    for name in wanted:
        if name in columns:
            return name
    near = difflib.get_close_matches(wanted[0], columns, n=1)
    hint = f"did you mean {what}={near[0]!r}?" if near else f"name it with {what}="
    raise ValueError(
        f"{source}: no column {' or '.join(wanted)}; the columns are {', '.join(columns)}; {hint}"
    )


def refuse_missing(source: object, what: str, keys: Sequence[str], total: int) -> None:
    """Raises a ValueError that counts `keys`, the pairs without `what`, if there are any."""
    if keys:
        first = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
        raise ValueError(
            f"{source}: {len(keys):,} of {total:,} pairs have no {what}: {first}; "
            "add what is missing or leave these out"
        )
