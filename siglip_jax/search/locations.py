"""Where the file of an item lies, from its key and what the job was given."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from siglip_jax.data.columns import PARQUET_ENDINGS, TABLE_ENDINGS, TAR_ENDINGS
from siglip_jax.data.storage import is_remote, joined, local, parent

_TAR = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, TAR_ENDINGS))}))/(.+)", re.I | re.S)
_TABLE = re.compile(
    rf"(.+?(?:{'|'.join(map(re.escape, (*PARQUET_ENDINGS, *TABLE_ENDINGS, '.txt')))})):(\d+)",
    re.I | re.S,
)
_FILES = (*TAR_ENDINGS, *PARQUET_ENDINGS, *TABLE_ENDINGS, ".txt")
_WILD = re.compile(r"[*?\[{]")


class Location(NamedTuple):
    """Where an item lies.

    Attributes:
      file: absolute path, or URL.
      member: of a tar: the name of the item's members, up to the ending.
      row: of a table or Parquet file, from 0.
    """

    file: str
    member: str | None = None
    row: int | None = None


def location(key: str, origin: dict[str, Any] | None) -> Location | None:
    """Where the item `key` lies; None if no local file is there, or nothing says where.

    What is in a bucket is not looked up: its URL is what the job read.

    Args:
      origin: of the job's manifest, `Dataset.origin`.

    >>> origin = {"specs": ["gs://b/shards/"], "folder": "/data"}
    >>> location("00.tar/000/17", origin)
    Location(file='gs://b/shards/00.tar', member='000/17', row=None)
    >>> location("sub/a.jpg", {"specs": ["s3://b/photos"]})
    Location(file='s3://b/photos/sub/a.jpg', member=None, row=None)
    """
    name, member, row = key, None, None
    if of_tar := _TAR.fullmatch(key):
        name, member = of_tar.groups()
    elif of_table := _TABLE.fullmatch(key):
        name, row = of_table[1], int(of_table[2])
    # The second item of a name has a number.
    if is_remote(name):
        return Location(name, member, row)
    for own in (name, re.sub(r"#\d+$", "", name)):
        for base in _bases(origin or {}, row):
            file = joined(base, own)
            if is_remote(file):
                return Location(file, member, row)
            if Path(file).is_file():
                return Location(os.path.normpath(file), member, row)
    return None


def _bases(origin: dict[str, Any], row: int | None) -> Iterator[str]:
    """The folders that keys may be relative to, the likeliest first."""
    specs, here = origin.get("specs", []), origin.get("folder") or str(Path.cwd())
    for spec in specs if len(specs) == 1 else []:
        fixed = _WILD.split(spec.removeprefix("texts:"))[0]
        folder = parent(fixed + "x") if _WILD.search(spec) else fixed.rstrip("/")
        if not is_remote(folder):
            # Of one file they are relative to the folder that it is in.
            yield from (str(Path(here) / local(folder)), str((Path(here) / local(folder)).parent))
        elif not folder.lower().endswith(_FILES):
            yield folder
        elif row is not None or folder.lower().endswith(TAR_ENDINGS):
            # Without a row the key is a value of a table, and may name anything.
            yield parent(folder)
    yield here
