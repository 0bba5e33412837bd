"""Files here and in buckets: listed, sized, opened, through fsspec where they are remote."""

import difflib
import glob
import io
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from siglip_jax.jobs.sources.trouble import protocol_of, retrying
from siglip_jax.optional import from_extra

# What tells two contents of one name apart, by the names that fsspec's packages give it.
_STAMPS = ("ETag", "etag", "blob_id", "md5Hash", "md5", "checksum")


class Stored(NamedTuple):
    """A file.

    Attributes:
      name: what keys and messages call it.
      where: its path or URL.
      size: in bytes, None if it is not known (or the file is missing).
      stamp: differs between contents, where a bucket has such a thing.
    """

    name: str
    where: str
    size: int | None = None
    stamp: str | None = None


def is_remote(where: str) -> bool:
    """Whether fsspec is needed.

    >>> is_remote("s3://bucket/a.tar"), is_remote("file:///a.tar"), is_remote("a.tar")
    (True, False, False)
    """
    return protocol_of(where) not in ("", "file")


def local(where: str) -> str:
    """`where` as a path of this machine: without file://, with ~ expanded."""
    return os.path.expanduser(where.removeprefix("file://"))  # noqa: PTH111 - keeps "./a"


def joined(folder: str, name: str) -> str:
    """`name` in `folder`, unless it is a URL or an absolute path itself."""
    if protocol_of(name):
        return name
    return posixpath.join(folder, name) if is_remote(folder) else str(Path(folder) / name)


def parent(where: str) -> str:
    """The folder of a file."""
    return where.rpartition("/")[0] if is_remote(where) else str(Path(where).parent)


def look_up(where: str) -> Stored | list[Stored]:
    """One file, or the files of a folder to the bottom, sorted, named relative to it.

    Raises:
      ValueError: one line, with near names if there is no such file.
    """
    if not is_remote(where):
        path = Path(local(where))
        if path.is_dir():
            return sorted(_walk(str(path), ""))
        if not path.exists():
            raise ValueError(f"{where}: no such file or folder{_near(where)}")
        return Stored(path.name, str(path), path.stat().st_size)
    fs, path = filesystem(where)
    try:
        info = retrying(where, lambda: fs.info(path))
    except ValueError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        raise ValueError(f"{error}{_near(where) if missing else ''}") from error.__cause__
    # A web server has no folders, only pages that list some.
    if info["type"] != "directory" and not where.endswith("/"):
        return _stored(fs, path.rpartition("/")[0], path, info)
    found = retrying(where, lambda: fs.find(path, detail=True))
    return sorted(_stored(fs, path.rstrip("/"), *entry) for entry in found.items())


def matches(pattern: str) -> list[Stored]:
    """The files that a pattern with `*`, `?` and `**` stands for, sorted.

    They are named relative to the folder before the first wildcard.

    Raises:
      ValueError: if there are none.
    """
    root = parent(pattern[: next(i for i, c in enumerate(pattern) if c in "*?[")] + "x")
    if is_remote(pattern):
        fs, path = filesystem(pattern)
        found = retrying(pattern, lambda: fs.glob(path, detail=True))
        base = fs._strip_protocol(root)
        files = [
            _stored(fs, base, name, info)
            for name, info in found.items()
            if info["type"] != "directory"
        ]
    else:
        names = glob.glob(local(pattern), recursive=True)  # noqa: PTH207 - absolute too
        files = [
            Stored(Path(os.path.relpath(name, local(root))).as_posix(), name, size(name))
            for name in names
            if not Path(name).is_dir()
        ]
    if not files:
        raise ValueError(f"{pattern}: no file matches this pattern")
    return sorted(files)


def size(path: str) -> int | None:
    """Bytes of a local file, None if there is none."""
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return None


def read_bytes(where: str) -> bytes:
    """A whole file.

    Raises:
      ValueError: one line that names it.
    """
    if not is_remote(where):
        return retrying(where, Path(local(where)).read_bytes)
    fs, path = filesystem(where)
    return retrying(where, lambda: fs.cat_file(path))


def open_binary(where: str) -> BinaryIO:
    """A file to read from; a remote one reconnects when the line breaks.

    Raises:
      ValueError: one line that names it.
    """
    if not is_remote(where):
        return retrying(where, lambda: Path(local(where)).open("rb"))
    return io.BufferedReader(_Remote(where), 1 << 20)


def filesystem(where: str) -> tuple[Any, str]:
    """fsspec's file system and the path in it.

    Raises:
      ValueError: if a package is missing, the protocol unknown, or there is no login.
    """
    fsspec = from_extra("jobs", "fsspec")
    protocol = protocol_of(where)
    known = fsspec.available_protocols()
    if protocol not in known:
        near = difflib.get_close_matches(protocol, known, n=1)
        hint = f"; did you mean {near[0]}://?" if near else ""
        raise ValueError(f"{where}: there is no protocol {protocol}://{hint}")
    return retrying(where, lambda: fsspec.core.url_to_fs(where))


class _Remote(io.RawIOBase):
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
            self._options = {"block_size": 0}
            return self._attempt(count)

    def _opened(self) -> Any:
        """The open file; one that gives itself only whole is read up to the position."""
        if self._file is None:
            self._file = self._fs.open(self._path, "rb", **self._options)
            left = self._position if self._options else 0
            while left and (skipped := self._file.read(min(left, 1 << 20))):
                left -= len(skipped)
        return self._file


def _walk(folder: str, inside: str) -> Iterator[Stored]:
    for entry in os.scandir(folder):  # with sizes at the cost of names
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{inside}{entry.name}/")
        elif entry.is_file():
            yield Stored(inside + entry.name, entry.path, entry.stat().st_size)


def _stored(fs: Any, folder: str, path: str, info: dict[str, Any]) -> Stored:
    stamp = next((str(info[key]) for key in _STAMPS if info.get(key)), None)
    name = path.removeprefix(folder).lstrip("/")
    return Stored(name, fs.unstrip_protocol(path), info.get("size"), stamp)


def _near(where: str) -> str:
    """A hint for what is missing: what lies beside it and is called nearly so."""
    folder, name = parent(where.rstrip("/")), where.rstrip("/").rpartition("/")[2]
    try:
        if is_remote(where):
            fs, path = filesystem(folder)
            names = [entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False)]
        else:
            names = os.listdir(local(folder))  # noqa: PTH208 - names only
    except FileNotFoundError:
        return f"; there is no folder {folder}"
    # Only a hint: a folder that cannot be listed gives none.
    except Exception:
        return ""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    return f"; did you mean {joined(folder, near[0])}?" if near else ""
