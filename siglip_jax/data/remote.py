"""Files in buckets and on web servers, through fsspec."""

import contextlib
import io
from typing import Any

from siglip_jax.data.failures import protocol_of, public, retrying
from siglip_jax.messages import did_you_mean

# Seconds until a web server is given up that does not answer, falls silent, or has not sent the
# whole of an image, or of the part of a larger file that was asked for.
CONNECT, SILENCE, WHOLE = 10.0, 30.0, 60.0
# Bytes of a file that is read whole: an image or texts. Several are in memory at once.
MOST = 256 << 20


def filesystem(where: str, *, streamed: bool = False, written: bool = False) -> tuple[Any, str]:
    """fsspec's file system and the path in it.

    Args:
      streamed: an answer of a web server may take as long as something comes.
      written: by this process and others; what was listed once is not remembered.

    Raises:
      ValueError: if a protocol's package is missing, the protocol unknown, or there is no login.
    """
    import fsspec

    protocol = protocol_of(where)
    known = fsspec.available_protocols()
    if protocol not in known:
        hint = did_you_mean(protocol, known, form="{}://")
        raise ValueError(f"{public(where)}: there is no protocol {protocol}://{hint}")
    options: dict[str, Any] = {}
    if protocol in ("http", "https"):
        options["client_kwargs"] = {"timeout": _timeout(None if streamed else WHOLE)}
    if written:
        options["use_listings_cache"] = False
    return retrying(where, lambda: fsspec.core.url_to_fs(where, **options))


def read_whole(fs: Any, path: str, web: bool) -> bytes:
    """The bytes of a file; no more than a few beyond `MOST` are ever taken of one that has more.

    Args:
      web: from a server that may send without end, whatever part it is asked for.

    Raises:
      ValueError: if it has more. What the protocol's package raises, otherwise.
    """
    if web:
        # Of a size, so that it is not asked for first; in no blocks, as it comes.
        with fs.open(path, "rb", block_size=0, size=1) as file:
            parts, left = [], MOST + 1
            while left > 0 and (part := file.read(left)):
                parts.append(part)
                left -= len(part)
        data = b"".join(parts) if left > 0 else None
    else:
        data = _first(fs, path, MOST + 1)
        data = data if len(data) <= MOST else None
    if data is None:
        raise ValueError(f"it has more than the {MOST:,} bytes that fit here")
    return data


def _first(fs: Any, path: str, count: int) -> bytes:
    try:
        return fs.cat_file(path, start=0, end=count)
    except Exception:
        # An empty file has no part that some would give.
        with contextlib.suppress(Exception):
            if fs.info(path)["size"] == 0:
                return b""
        raise


def _timeout(whole: float | None) -> Any:
    """aiohttp's: a server that sends a byte now and then is given up, too, after `whole`."""
    import aiohttp

    return aiohttp.ClientTimeout(total=whole, sock_connect=CONNECT, sock_read=SILENCE)


class RemoteFile(io.RawIOBase):
    """A remote file that is opened again, where it was, after a transient error."""

    def __init__(self, where: str) -> None:
        self._where, self._position = where, 0
        self._fs, self._path = filesystem(where)
        self._options: dict[str, Any] = {}
        self._file: Any = None
        self._size = retrying(where, self._opened).size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return not self._options

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self.seekable():
            raise io.UnsupportedOperation("the server gives whole files only")
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = retrying(self._where, lambda: self._attempt(len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()

    def _attempt(self, count: int) -> bytes:
        try:
            file = self._opened()
            if self.seekable() and file.tell() != self._position:
                file.seek(self._position)
            data = file.read(count)
            if not data and self._size is not None and self._position < self._size:
                raise ConnectionError(f"it ends after {self._position:,} of {self._size:,} bytes")
            return data
        except Exception as error:
            self._file = None
            if "range requests" not in str(error) or self._options:
                raise
            # fsspec's word for a web server that gives whole files only.
            # That may take long, as long as something comes.
            self._options = {"block_size": 0}
            self._fs, self._path = filesystem(self._where, streamed=True)
            return self._attempt(count)

    def _opened(self) -> Any:
        """The open file; one that gives itself only whole is read up to the position."""
        if self._file is None:
            self._file = self._fs.open(self._path, "rb", **self._options)
            left = self._position if self._options else 0
            while left and (skipped := self._file.read(min(left, 1 << 20))):
                left -= len(skipped)
        return self._file
