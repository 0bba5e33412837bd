"""What a file of weights may claim: no more than its bytes can hold.

A file of a few kilobytes may say that it holds terabytes, and a compressed one may even hold
them. Weights hardly compress; what unpacks to far more than it takes is refused unread.
"""

import math
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, cast

# Twice what the zeros of a model that was never trained come to in our own files.
RATIO = 200
FREE = 64 << 20  # bytes, whatever they unpack from
DIMENSIONS = 32
DIRECTORY = 16 << 20  # bytes of the list of a zip's members: some 150,000
_MOST_EMPTY = 1 << 16
_NAME = 4096
_LOCAL_HEADER = 30  # bytes before a member's name; the last four are the lengths of name and extra


def check_claim(claimed: int, stored: int) -> None:
    """Raises a ValueError unless `stored` bytes may well unpack to `claimed`.

    >>> check_claim(10**12, 3_000_000)
    Traceback (most recent call last):
    ValueError: it claims to hold 1,000,000,000,000 bytes in 3,000,000, which no weights do
    """
    if claimed > FREE + RATIO * stored:
        raise ValueError(f"it claims to hold {claimed:,} bytes in {stored:,}, which no weights do")


def is_shape(values: Any) -> bool:
    """Whether these are the sides of an array.

    >>> is_shape([3, 0]), is_shape((2, -2)), is_shape([True]), is_shape([10**9, 0])
    (True, False, False, False)
    """
    if not isinstance(values, list | tuple):
        return False
    sides = cast(list[Any], values)
    return (
        len(sides) <= DIMENSIONS
        and all(type(side) is int and 0 <= side < 2**40 for side in sides)
        # What has no bytes may not stand for work in a side of its own.
        and (0 not in sides or math.prod(max(side, 1) for side in sides) <= _MOST_EMPTY)
    )


def open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """A zip archive whose members are what they say they are.

    Raises:
      ValueError: if members overlap, are encrypted, named twice, compressed in a way that no
        weights are, or claim to hold more than they can.
      zipfile.BadZipFile: if it is none, or damaged.
    """
    size = file.seek(0, os.SEEK_END)
    # Before zipfile makes an object of each of them.
    end: Any = getattr(zipfile, "_EndRecData")(file)  # noqa: B009 - private
    if end and end[5] > DIRECTORY:
        raise ValueError(f"the list of its members has {end[5]:,} bytes")
    archive = zipfile.ZipFile(file)
    check_members(archive.infolist(), size)
    return archive


def check_members(members: Iterable[zipfile.ZipInfo], size: int) -> None:
    """Raises a ValueError unless a zip of `size` bytes may well hold `members`."""
    names: set[str] = set()
    stored = claimed = 0
    for member in members:
        name = member.filename[:_NAME]
        if name in names:
            raise ValueError(f"{name} is in it twice")
        if member.flag_bits & 1:
            raise ValueError(f"{name} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is compressed in a way that is not read")
        if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
            raise ValueError(f"{name} has two sizes")
        names.add(name)
        stored += member.compress_size
        claimed += member.file_size
    if stored > size:
        raise ValueError("its members overlap")
    check_claim(claimed, size)


def content_offset(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Where the content of a member begins."""
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER)
    lengths = (int.from_bytes(header[start : start + 2], "little") for start in (26, 28))
    return member.header_offset + _LOCAL_HEADER + sum(lengths)


def stored_bytes(folder: Path) -> int:
    """Of all files in a folder and those below it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
