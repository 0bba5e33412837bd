"""The ledger of a job in a bucket: objects of many entries each, so that few are listed.

`ledger/00000-00255.json` is of these shards, as far as they are done, an entry a line. It is
written anew after each of its shards, by the one process whose they are.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from siglip_jax.jobs.bucket import BucketPath, Version
from siglip_jax.jobs.entry import Entry
from siglip_jax.messages import reason

SIZE = 256  # shards: 100,000 are 391 objects, of some 80 kB each
_NAME = re.compile(r"(\d{5,})-(\d{5,})\.json")


class Block(NamedTuple):
    """An object of a ledger: what is in it, and the entries which that says."""

    version: Version
    entries: list[Entry]


def block_of(shard: int, shards: range) -> range:
    """The shards that are in one object with `shard`, of those that one process does.

    >>> block_of(700, range(300, 1000))
    range(556, 812)
    """
    first = shard - (shard - shards.start) % SIZE
    return range(first, min(first + SIZE, shards.stop))


def blocks(shards: range) -> Iterator[range]:
    """Those of all shards that one process does."""
    return (block_of(first, shards) for first in range(shards.start, shards.stop, SIZE))


def block_name(block: range) -> str:
    """
    >>> block_name(range(256, 512))
    '00256-00511.json'
    """
    return f"{block.start:05d}-{block.stop - 1:05d}.json"


def block_bytes(entries: Iterable[Entry]) -> bytes:
    """An object with these entries."""
    lines = (json.dumps(entry._asdict(), ensure_ascii=False) for entry in entries)
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode("utf-8", "backslashreplace")


def read_blocks(folder: BucketPath) -> dict[str, Block]:
    """The objects of the ledger of a job, by their names.

    Raises:
      ValueError: one line, if one of them is none.
    """
    ledger = folder / "ledger"
    for last in (False, False, True):
        names = [name for name in ledger.children() if _NAME.fullmatch(name)]
        try:
            found = ledger.read_all(names)
        except FileNotFoundError:
            # Another process, which was the last, has just put some of them together.
            if last:
                raise
            continue
        return {name: Block(Version(data), _parsed(ledger / name, data)) for name, data in found}
    raise AssertionError("unreachable")


def _parsed(path: BucketPath, data: bytes) -> list[Entry]:
    try:
        return [Entry(**plain) for plain in json.loads(data.decode("utf-8"))]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: not a part of a ledger ({reason(error)}); remove it, and the same command "
            "computes its shards again"
        ) from error
