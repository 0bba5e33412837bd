"""Stamps: what tells two contents of one name apart, for as few bytes read as possible."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from siglip_jax.data.item import Item, fingerprint
from siglip_jax.data.storage import Stored, is_remote, local

_END = 4096  # bytes of each end of a file that are looked at
_LOOKS = 1024  # files of a listing that are opened for `contents_of`
_THREADS = 16  # that open files, whose folder may be on another machine


def item_stamp(item: Item) -> str | None:
    """Of an image its size and a digest of its ends, and a digest of its text; None if unknown.

    What is kept of a row of a table counts as its text does; of other files the whole is
    compared. The image may be bytes or a local path. That of a remote one is `item.stamp`.

    >>> item_stamp(Item("a", b"abc")) == item_stamp(Item("b", b"abc"))
    True
    >>> item_stamp(Item("a", text="a dog")) == item_stamp(Item("a", text="a cat"))
    False
    """
    if item.error is not None:
        return None
    image, stamp = item.image, item.stamp
    if stamp is None and image is not None:
        if isinstance(image, bytes):
            stamp = _digest(len(image), image[:_END], image[-_END:])
        elif isinstance(image, str):
            stamp = ends_of(local(image))
        if stamp is None:
            return None
    words = item.text
    texts = {name: v for name, v in (item.kept or {}).items() if v is None or isinstance(v, str)}
    if texts:
        words = json.dumps([item.text, texts])
    if words is None:
        return stamp
    text = words.encode("utf-8", "surrogatepass")
    return f"{stamp or ''}/{hashlib.blake2b(text, digest_size=8).hexdigest()}"


def ends_of(path: str) -> str | None:
    """Size and digest of the ends of a local file; None if it cannot be read.

    >>> _ = Path("a.bin").write_bytes(b"abc")
    >>> ends_of("a.bin") == item_stamp(Item("a", b"abc")), ends_of("b.bin")
    (True, None)
    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_END)
            if size > len(head):
                file.seek(max(size - _END, 0))
                return _digest(size, head, file.read(_END))
            return _digest(size, head, head)
    except (OSError, ValueError):
        return None


def file_stamp(file: Stored) -> str:
    """Of a file that is one shard: what its ends do not show, its time of change does."""
    if is_remote(file.where):
        return remote_stamp(file)
    return f"{ends_of(local(file.where))}-{_time(file.where)}"


def remote_stamp(file: Stored) -> str:
    """What a bucket says of a file; empty where it says nothing, as of the URLs in a list."""
    return "-".join(str(part) for part in (file.size, file.stamp) if part is not None)


def item_stamps(items: Iterable[Item]) -> Iterator[tuple[str, str | None]]:
    """Key and stamp of each of `items`, whose images are paths."""
    items = list(items)
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from zip((item.key for item in items), pool.map(item_stamp, items), strict=True)


def contents_of(files: Sequence[str]) -> str:
    """The times of change of all local files, and the ends of up to 1,024, evenly taken."""
    here = [where for where in files if not is_remote(where)]
    step = -(-len(here) // _LOOKS) or 1
    with ThreadPoolExecutor(_THREADS) as pool:
        times = [_time(where) for where in here]
        return fingerprint(times, list(pool.map(ends_of, map(local, here[::step]))))


def _time(where: str) -> int:
    try:
        return os.stat(local(where)).st_mtime_ns  # noqa: PTH116 - as many as there are images
    except (OSError, ValueError):
        return 0


def _digest(size: int, head: bytes, tail: bytes) -> str:
    return f"{size:x}.{hashlib.blake2b(head + tail, digest_size=8).hexdigest()}"
