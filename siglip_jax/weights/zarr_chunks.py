"""The header and the chunks of a zarr array, examined before tensorstore is given them.

tensorstore allocates what a header says and unpacks a chunk whole before it compares sizes:
of a damaged or a made-up array it ends the process, or takes all memory.
"""

import math
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from siglip_jax.json_text import parsed, read_text
from siglip_jax.weights.bounds import is_shape

_MOST_TEXT = 1 << 20
_DTYPE = re.compile(r"bfloat16|[<>|](f[248]|[iu][1248]|b1)")
_ZSTD, _SKIPPED = 0xFD2FB528, 0x184D2A50  # beginnings of frames; the latter of sixteen kinds
_BLOCK = 128 << 10  # the most that a block of zstd unpacks to; many unpack to less
_SLACK = 8
_PIECE = 1 << 20


def read_header(member: Path) -> dict[str, Any]:
    """The `.zarray` of an array.

    Raises:
      ValueError, KeyError, TypeError, OSError: if it says what tensorstore should not be given.
    """
    header = parsed(read_text(member / ".zarray", _MOST_TEXT))
    shape, chunks, dtype = header["shape"], header["chunks"], header["dtype"]
    if not (is_shape(shape) and is_shape(chunks) and len(shape) == len(chunks)):
        raise ValueError("its shape or its chunks are no sizes")
    # tensorstore allocates whole chunks.
    if any(not 1 <= chunk <= max(side, 1) for chunk, side in zip(chunks, shape, strict=True)):
        raise ValueError(f"chunks of {chunks} in an array of {shape}")
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise ValueError(f"its dtype is {dtype!r}")
    kind = _compressor(header)
    if kind is not None and kind not in _UNPACKED:
        raise ValueError(f"compressed by {kind!r}, expected one of {', '.join(_UNPACKED)}")
    return header


def _compressor(header: dict[str, Any]) -> str | None:
    compressor = header.get("compressor")
    return None if compressor is None else str(compressor["id"])


def check_chunks(member: Path) -> None:
    """Raises a ValueError if a chunk of the array unpacks to more than its header says."""
    header = read_header(member)
    kind = _compressor(header)
    itemsize = 2 if header["dtype"] == "bfloat16" else int(header["dtype"][2:])
    expected = math.prod(header["chunks"]) * itemsize
    for file in member.rglob("*"):
        if file.name.startswith(".") or not file.is_file():
            continue
        enough = _SLACK * expected + _PIECE
        most = _UNPACKED[kind](file, enough) if kind else file.stat().st_size
        if most > enough:
            raise ValueError(f"chunk {file.name} unpacks to more than {expected:,} bytes")


def _zstd(file: Path, enough: int) -> int:
    """The most that a file unpacks to, by the headers of its blocks; counted to `enough`."""
    most, size = 0, file.stat().st_size
    with file.open("rb") as stream:

        def number(count: int) -> int:
            data = stream.read(count)
            if len(data) < count:
                raise ValueError("a chunk ends early")
            return int.from_bytes(data, "little")

        while stream.tell() < size and most <= enough:
            mark = number(4)
            if mark & ~0xF == _SKIPPED:
                stream.seek(number(4), 1)
                continue
            if mark != _ZSTD:
                raise ValueError("a chunk is no zstd")
            flags = number(1)
            single = flags >> 5 & 1
            # The window, the number of a dictionary, the size of the content.
            content = (single, 2, 4, 8)[flags >> 6]
            stream.seek(1 - single + (0, 1, 2, 4)[flags & 3] + content, 1)
            last = False
            while not last and most <= enough:
                block = number(3)
                last, kind, length = bool(block & 1), block >> 1 & 3, block >> 3
                most += _BLOCK if kind == 2 else length
                stream.seek(1 if kind == 1 else length, 1)
            stream.seek(4 * (flags >> 2 & 1), 1)  # a checksum
    return most


def _blosc(file: Path, enough: int) -> int:
    with file.open("rb") as stream:
        header = stream.read(16)
    if len(header) < 16:
        raise ValueError("a chunk ends early")
    return int.from_bytes(header[4:8], "little")


def _zlib(file: Path, enough: int) -> int:
    most, unpacker = 0, zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip too
    with file.open("rb") as stream:
        while most <= enough and not unpacker.eof:
            packed = unpacker.unconsumed_tail or stream.read(_PIECE)
            if not packed:
                break
            try:
                most += len(unpacker.decompress(packed, _PIECE))
            except zlib.error as error:
                raise ValueError(f"a chunk is damaged ({error})") from error
        more = unpacker.unused_data or stream.read(1)
    if more:
        raise ValueError("a chunk is longer than it says")
    return most


_UNPACKED: dict[str, Callable[[Path, int], int]] = {
    "zstd": _zstd,
    "blosc": _blosc,
    "gzip": _zlib,
    "zlib": _zlib,
}
