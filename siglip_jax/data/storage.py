"""Files here and in buckets: found, listed, read. Local ones need no fsspec."""

import glob
import io
import itertools
import os
import posixpath
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from siglip_jax.data.failures import protocol_of, public, retrying
from siglip_jax.data.remote import RemoteFile, filesystem, read_whole
from siglip_jax.messages import suggestions
from siglip_jax.regular_file import read_regular

_BRACES = re.compile(r"\{([^{}]*)\}")

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


def is_pattern(where: str) -> bool:
    """Whether a path or URL stands for others; on the web a question mark begins a query.

    >>> is_pattern("a?.jpg"), is_pattern("https://host/a.jpg?id=1"), is_pattern("s3://b/*.tar")
    (True, False, True)
    """
    return any(c in where for c in _wildcards(where))


def _wildcards(where: str) -> str:
    return "*[" if protocol_of(where) in ("http", "https") else "*?["


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
            outputs: list[str] = []
            files = sorted(_walk(str(path), "", outputs))
            _warn_of_outputs(where, outputs)
            return files
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
    wild = _wildcards(pattern)
    root = parent(pattern[: next(i for i, c in enumerate(pattern) if c in wild)] + "x")
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
        inside = {name: _output_around(name, local(root)) for name in names}
        names = [name for name in names if inside[name] is None]
        _warn_of_outputs(pattern, list({output for output in inside.values() if output}))
        files = [
            Stored(Path(os.path.relpath(name, local(root))).as_posix(), name, size(name))
            for name in names
            if not Path(name).is_dir()
        ]
    if not files:
        raise ValueError(f"{public(pattern)}: no file matches this pattern")
    return sorted(files)


def without_braces(name: str) -> list[str]:
    """Every name that `{0..3}` and `{a,b}` stand for, as the shell has it.

    >>> without_braces("x-{08..10}.{tar,idx}")[:3]
    ['x-08.tar', 'x-08.idx', 'x-09.tar']
    """
    pieces = _BRACES.split(name)
    choices: list[list[str]] = []
    for number, piece in enumerate(pieces):
        span = re.fullmatch(r"(\d+)\.\.(\d+)", piece)
        if number % 2 == 0:
            choices.append([piece])
        elif span:
            low, high = int(span[1]), int(span[2])
            choices.append([str(i).zfill(len(span[1])) for i in range(low, high + 1)])
        else:
            choices.append(piece.split(","))
    return ["".join(parts) for parts in itertools.product(*choices)]


def size(path: str) -> int | None:
    """Bytes of a local file, None if there is none."""
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return None


def read_bytes(where: str, *, pipe: bool = False) -> bytes:
    """A whole file.

    Args:
      pipe: a local one may be a pipe, such as the shell's `<(command)`.

    Raises:
      ValueError: one line that names it; also if it is neither a file nor may be a pipe, or
        is larger than any image.
    """
    if not is_remote(where):
        path = Path(local(where))
        return retrying(where, path.read_bytes if pipe else lambda: read_regular(path))
    fs, path = filesystem(where)
    web = protocol_of(where) in ("http", "https")
    return retrying(where, lambda: read_whole(fs, path, web))


def read_if_there(where: str) -> bytes | None:
    """A whole file, or None if there is none of this name.

    Raises:
      ValueError: one line that names it, for any other failure.
    """
    try:
        return read_bytes(where)
    except ValueError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def read_range(where: str, start: int, size: int) -> bytes:
    """`size` bytes of a file from `start` on.

    Raises:
      ValueError: one line that names it; also if it ends before.
    """
    if is_remote(where):
        fs, path = filesystem(where)
        data = retrying(where, lambda: fs.cat_file(path, start=start, end=start + size))
        # Some web servers give whole files only. Large ones are refused when they are opened.
        data = data if len(data) <= size else data[start : start + size]
    else:
        data = retrying(where, lambda: _local_range(where, start, size))
    if len(data) < size:
        raise ValueError(f"{public(where)}: the file has become shorter since it was opened")
    return data


def open_binary(where: str) -> io.BufferedReader:
    """A file to read from; a remote one reconnects when the line breaks.

    Raises:
      ValueError: one line that names it.
    """
    if not is_remote(where):
        return retrying(where, lambda: Path(local(where)).open("rb"))
    return io.BufferedReader(RemoteFile(where), 1 << 20)


def _local_range(where: str, start: int, size: int) -> bytes:
    # Opened every time: that costs little, and needs no care for threads and processes.
    with Path(local(where)).open("rb", buffering=0) as opened:
        opened.seek(start)
        return opened.read(size)


def whole_only(where: str, what: str) -> ValueError:
    """The error of a web server from which no part of a file can be had."""
    return ValueError(
        f"{public(where)}: the server gives whole files only, and {what} is read in parts; "
        "download it first"
    )


def _walk(folder: str, inside: str, outputs: list[str]) -> Iterator[Stored]:
    for entry in os.scandir(folder):  # with sizes at the cost of names
        if entry.is_dir(follow_symlinks=False):
            if _is_output(entry.path):
                outputs.append(inside + entry.name)
            else:
                yield from _walk(entry.path, f"{inside}{entry.name}/", outputs)
        elif entry.is_file():
            yield Stored(inside + entry.name, entry.path, entry.stat().st_size)


def _is_output(folder: str) -> bool:
    """Whether a bulk job writes there, perhaps the one that reads what is around it."""
    return (Path(folder) / "manifest.json").is_file() and (Path(folder) / "ledger").is_dir()


def _output_around(path: str, root: str) -> str | None:
    """The folder of a job, below `root`, that a file is in."""
    folder = Path(path).parent
    while folder != Path(root) and folder != folder.parent:
        if _is_output(str(folder)):
            return str(folder)
        folder = folder.parent
    return None


def _warn_of_outputs(where: str, outputs: list[str]) -> None:
    if outputs:
        some = ", ".join(sorted(outputs)[:3]) + ", ..." * (len(outputs) > 3)
        warnings.warn(f"{where}: what jobs have written is left out: {some}", stacklevel=3)


def _stored(fs: Any, folder: str, path: str, info: dict[str, Any]) -> Stored:
    stamp = next((str(info[key]) for key in _STAMPS if info.get(key)), None)
    # Of a web server these are whole URLs.
    name = public(path).removeprefix(public(folder)).lstrip("/")
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
        return f"; there is no folder {public(folder)}"
    # Only a hint: a folder that cannot be listed gives none.
    except Exception:
        return ""
    near = suggestions(name, names)
    return f"; did you mean {public(joined(folder, near[0]))}?" if near else ""
