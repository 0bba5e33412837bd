"""The members of a tar, from front to back, with nothing held but the one in hand."""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, cast

from siglip_jax.data.failures import public
from siglip_jax.data.storage import open_binary, whole_only
from siglip_jax.preprocessing.signatures import HEAD

_OPENERS = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_FAILURES = (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error)
# What claims to be an image of more than this would not fit into memory.
LARGEST = 1 << 30


class Damaged(Exception):
    """A tar cannot be read further; the message says after which member and why."""

    def __init__(self, message: str, inside: str | None = None) -> None:
        super().__init__(message)
        self.inside = inside  # name of the member that is cut off


class Member(NamedTuple):
    """A file in a tar, and where its content lies in the decompressed tar.

    `read()`, before the next member is asked for, gives the content, or None if it is too
    large; `read(looks)` gives b"" unless `looks` holds of its first bytes. It raises `Damaged`.
    A link has no content.
    """

    name: str
    offset: int
    size: int
    read: Callable[..., bytes | None]
    link: bool = False


def members(where: str, *, jump: bool = False) -> Iterator[Member]:
    """The files and links in a tar.

    Args:
      jump: go from header to header, without reading what lies between.

    Raises:
      ValueError: if it is no tar, or cannot be reached; with `jump`, if it is compressed or
        comes from a server that gives whole files only.
      Damaged: if it ends too early or something else follows.
    """
    with open_binary(where) as opened:
        head = opened.peek(2)[:2]
        if jump and head in _OPENERS:
            raise ValueError(
                f"{public(where)}: a compressed tar has no random access; decompress it "
                "(images do not get smaller by it)"
            )
        plain = _OPENERS[head](opened) if head in _OPENERS else opened
        stream: Any = _Forward(plain, jump)
        try:
            tar = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 - closed with its file
        except _FAILURES as error:
            problem = "the file is empty" if not head else "not a tar"
            raise ValueError(f"{public(where)}: {problem}; expected a webdataset shard") from error
        last = "its beginning"
        try:
            for member in tar:
                cast(Any, tar).members = []  # it would remember every header
                link = member.issym() or member.islnk()
                if not member.isfile() and not link:
                    continue
                last = member.name
                read = lambda looks=None, member=member: _content(stream, member, looks)  # noqa: E731
                yield Member(member.name, member.offset_data, member.size, read, link)
            # tarfile takes an end of the file, or what is no header, for the end of the tar.
            if len(stream.last) < tarfile.BLOCKSIZE:
                raise Damaged(f"cut off after {last}: there is no end mark")
            if any(stream.last):
                raise Damaged(f"damaged after {last}: no valid header follows")
        except io.UnsupportedOperation as error:
            raise whole_only(where, "a tar in random access") from error
        except _FAILURES as error:
            reason = getattr(error, "strerror", None) or error
            raise Damaged(f"cut off or damaged after {last}: {reason}") from error


def _content(
    stream: "_Forward", member: tarfile.TarInfo, looks: Callable[[bytes], object] | None
) -> bytes | None:
    if member.size > LARGEST:
        return None
    try:
        stream.seek(member.offset_data)
        head = stream.read(min(member.size, HEAD)) if looks else b""
        if looks and not looks(head):
            return b""
        data = head + stream.read(member.size - len(head))
        missing = member.size - len(data)
        reason = f"{missing:,} of {member.size:,} bytes are missing"
    except _FAILURES as error:
        missing, reason = member.size, str(error)
    if missing:
        raise Damaged(f"{member.name} is cut off: {reason}", member.name)
    return data


class _Forward:
    """What tarfile needs of a file, for a stream that cannot go back.

    Args:
      jump: the stream can, and what is passed over need not be read.
    """

    def __init__(self, stream: BinaryIO | Any, jump: bool) -> None:
        self._stream, self._jump, self._position = stream, jump, 0
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
        if self._jump and position != self._position:
            self._position, self._again = self._stream.seek(position), b""
            return
        # tarfile reads the byte before a header, to see that the file goes on until there.
        if position == self._position - 1 and self.last:
            self._again, self._position = self.last[-1:], position
        while self._position < position and self.read(min(position - self._position, 1 << 20)):
            pass
