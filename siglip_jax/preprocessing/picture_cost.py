"""Which images may be decoded in a thread, and which could hold it for minutes.

A thread cannot be stopped, and some of Pillow's readers are loops in Python that let no other
run. What they take, and what a few bytes make take long, goes to a process (`decode_process`).
"""

import re
from typing import NamedTuple

from siglip_jax.preprocessing.signatures import HEAD, image_format, unknown_format

MOST_SCANS = 100  # encoders write some ten, and rarely more than twenty
_QUICK = 1_000_000_000  # scans times pixels: a few seconds
_MOST_MARKERS = 10_000
_MOST_CHUNKS = 50_000
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
# Markers that are followed by their length, and the end: not those that stand alone.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_MANY = -1  # scans, where there are more markers than any file has
# What Pillow's readers of the formats that we mean take, beyond `image_format`.
_OTHERS = (b"\0\0\1\0", b"MM*\0", b"II\0*", b"MM\0+", b"II+\0", b"P", b"BM", b"GIF8")


class Scans(NamedTuple):
    """How often a JPEG goes over its pixels, and its size, zeros where it states none.

    Attributes:
      begin: bytes before its first scan, in which all is that it says of itself.
    """

    count: int
    height: int = 0
    width: int = 0
    components: int = 0
    begin: int = 0


def scans(data: bytes) -> Scans:
    r"""The scans of a JPEG, by its markers, as libjpeg goes from one to the next.

    >>> scans(b"\xff\xd8\xff\xc2\0\x0b\x08\0\x10\0\x10\1\1\x11\0\xff\xda\0\2..\xff\xda\0\2")
    Scans(count=2, height=16, width=16, components=1, begin=17)
    """
    at, count, progressive, size, begin = 2, 0, False, (0, 0, 0), len(data)
    for _ in range(_MOST_MARKERS):
        found = _MARKER.search(data, at)
        if found is None or found[1] == b"\xd9":
            return Scans(max(count, 1), *size, begin)
        marker, at = found[1][0], found.end()
        if marker == 0xDA:
            count, begin = count + 1, min(begin, at)
            if not progressive and data[at + 2 : at + 3] >= bytes([size[2] or 1]):
                return Scans(1, *size, begin)  # libjpeg stops after it
        elif marker in _FRAMES:
            progressive, frame = marker in _PROGRESSIVE, data[at + 3 : at + 8].ljust(5, b"\0")
            size = int.from_bytes(frame[:2]), int.from_bytes(frame[2:4]), frame[4]
        at += int.from_bytes(data[at : at + 2])
    return Scans(_MANY, *size, begin)


class Road(NamedTuple):
    """How an image is decoded: in a process, or not at all and why not; a JPEG's scans."""

    process: bool = False
    refused: str | None = None
    scans: Scans | None = None


def road(data: bytes) -> Road:
    """How to decode the bytes of a file, of which no more than markers are looked at.

    >>> road(b"%!PS-Adobe-3.0 EPSF-3.0").refused
    'not an image in a known format'
    >>> road(b"P6 1 1 255 abc").process
    True
    """
    kind = image_format(data[:HEAD])
    if kind == "JPEG":
        found = scans(data)
        if found.count > MOST_SCANS:
            said = f"a JPEG of {found.count:,} scans, more than the limit of {MOST_SCANS}"
            return Road(refused=said)
        long = found.count * found.height * found.width > _QUICK
        return Road(long or found.count == _MANY, scans=found)
    if kind == "PNG":
        return Road(_many_chunks(data))
    if kind == "BMP":
        # Compressed ones are read by loops in Python.
        return Road(int.from_bytes(data[30:34], "little") not in (0, 3))
    if kind is None and not data.startswith(_OTHERS):
        return Road(refused=unknown_format(None))
    return Road(kind != "WebP")


def _many_chunks(data: bytes) -> bool:
    at = 8
    for _ in range(_MOST_CHUNKS):
        if at >= len(data):
            return False
        at += 12 + int.from_bytes(data[at : at + 4])
    return True
