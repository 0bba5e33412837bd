"""The members of a tar, from front to back, with nothing held but the one in hand."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from siglip_jax.jobs.sources.storage import open_binary

_OPENERS = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_FAILURES = (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error)
# What claims to be a picture of more than this would not fit into memory.
LARGEST = 1 << 30


class Damaged(Exception):
    """A tar cannot be read further; the message says after which member and why."""

    def __init__(self, message: str, inside: str | None = None) -> None:
        super().__init__(message)
        self.inside = inside  # name of the member that is cut off


def members(where: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | None]]:
    """Name and content of the files in a tar whose names are `wanted`; None if too large.

    Raises:
      ValueError: if it is no tar, or cannot be reached.
      Damaged: if it ends too early or something else follows.
    """
    with open_binary(where) as opened:
        head = opened.peek(2)[:2]
        plain = _OPENERS[head](opened) if head in _OPENERS else opened
        stream = _Forward(plain)
        try:
            tar = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 - closed with its file
        except _FAILURES as error:
            problem = "the file is empty" if not head else "not a tar"
            raise ValueError(f"{where}: {problem}; expected a webdataset shard") from error
        last = "its beginning"
        try:
            for member in tar:
                tar.members = []  # it would remember every header
                if not member.isfile() or not wanted(member.name):
                    continue
                last = member.name
                stream.seek(member.offset_data)
                yield member.name, _content(stream, member)
            # tarfile takes an end of the file, or what is no header, for the end of the tar.
            if len(stream.last) < tarfile.BLOCKSIZE:
                raise Damaged(f"cut off after {last}: there is no end mark")
            if any(stream.last):
                raise Damaged(f"damaged after {last}: no valid header follows")
        except _FAILURES as error:
            reason = getattr(error, "strerror", None) or error
            raise Damaged(f"cut off or damaged after {last}: {reason}") from error


def _content(stream: "_Forward", member: tarfile.TarInfo) -> bytes | None:
    if member.size > LARGEST:
        return None
    try:
        data = stream.read(member.size)
        missing = member.size - len(data)
        reason = f"{missing:,} of {member.size:,} bytes are missing"
    except _FAILURES as error:
        missing, reason = member.size, str(error)
    if missing:
        raise Damaged(f"{member.name} is cut off: {reason}", member.name)
    return data


class _Forward:
    """What tarfile needs of a file, for a stream that cannot go back."""

    def __init__(self, stream: BinaryIO | Any) -> None:
        self._stream, self._position = stream, 0
        self._again = b""
        self.last = b""  # what the last read gave

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        parts = [self._again[:count]]
        self._again = b""
        left = count - len(parts[0])
        while left and (part := self._stream.read(left)):
            parts.append(part)
            left -= len(part)
        self.last = b"".join(parts)
        self._position += len(self.last)
        return self.last

    def seek(self, position: int) -> None:
        # tarfile reads the byte before a header, to see that the file goes on until there.
        if position == self._position - 1 and self.last:
            self._again, self._position = self.last[-1:], position
        while self._position < position and self.read(min(position - self._position, 1 << 20)):
            pass
