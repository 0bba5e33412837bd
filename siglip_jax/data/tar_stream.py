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
# What headers make tarfile stumble over: each is a call in the one before, and holds numbers.
_STUMBLES = (RecursionError, ValueError, KeyError, IndexError, OverflowError)
# What claims to be an image of more than this would not fit into memory.
LARGEST = 1 << 30
# Headers before a member: long names and lists of attributes, which tarfile holds whole.
_MOST_HEADERS = 1 << 20
# What a compressed tar may unpack to, for its own size; texts come to some ten.
_RATIO = 200
_MOST_GLOBAL = 1000


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
        stream: Any = _Forward(plain, jump, opened if head in _OPENERS else None)
        try:
            tar = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 - closed with its file
        except (*_FAILURES, *_STUMBLES) as error:
            if error is stream.unreachable:
                raise
            problem = "the file is empty" if not head else "not a tar"
            raise ValueError(f"{public(where)}: {problem}; expected a webdataset shard") from error
        last = "its beginning"
        try:
            for member in tar:
                stream.headers = 0
                cast(Any, tar).members = []  # it would remember every header
                if len(tar.pax_headers) > _MOST_GLOBAL:
                    raise Damaged(f"damaged after {last}: there is no end of global headers")
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
        except (*_FAILURES, *_STUMBLES) as error:
            if error is stream.unreachable:
                raise
            reason = getattr(error, "strerror", None) or error
            raise Damaged(f"cut off or damaged after {last}: {reason}") from error


def _content(
    stream: "_Forward", member: tarfile.TarInfo, looks: Callable[[bytes], object] | None
) -> bytes | None:
    if member.size > LARGEST:
        return None
    try:
        stream.seek(member.offset_data)
        head = stream.content(min(member.size, HEAD)) if looks else b""
        if looks and not looks(head):
            return b""
        data = head + stream.content(member.size - len(head))
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
      packed: the file that `stream` unpacks.

    Attributes:
      headers: bytes of headers since it was last set to 0.
      last: what the last read gave.
      unreachable: what was raised because the file could not be read on.
    """

    def __init__(self, stream: BinaryIO | Any, jump: bool, packed: BinaryIO | Any) -> None:
        self._stream, self._jump, self._packed, self._position = stream, jump, packed, 0
        self._again = b""
        self.headers, self.last = 0, b""
        self.unreachable: ValueError | None = None

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        """What tarfile reads are headers."""
        self.headers += count
        if self.headers > _MOST_HEADERS:
            raise tarfile.ReadError(f"headers of more than {_MOST_HEADERS:,} bytes")
        return self.content(count)

    def content(self, count: int) -> bytes:
        parts = [self._again[:count]]
        self._again = b""
        left = count - len(parts[0])
        try:
            while left and (part := self._stream.read(left)):
                parts.append(part)
                left -= len(part)
        except ValueError as error:
            self.unreachable = error
            raise
        self.last = b"".join(parts)
        self._position += len(self.last)
        if self._packed and self._position > LARGEST + _RATIO * self._packed.tell():
            raise tarfile.ReadError(f"it unpacks to more than {_RATIO} times its size")
        return self.last

    def seek(self, position: int) -> None:
        if self._jump and position != self._position:
            self._position, self._again = self._stream.seek(position), b""
            return
        # tarfile reads the byte before a header, to see that the file goes on until there.
        if position == self._position - 1 and self.last:
            self._again, self._position = self.last[-1:], position
        while self._position < position and self.content(min(position - self._position, 1 << 20)):
            pass
