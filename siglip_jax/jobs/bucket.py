"""The output of a job in a bucket: objects, each whole with the one put that makes it.

`BucketPath` has those methods of `pathlib.Path` that jobs and what reads them need, so that a
folder of either kind is one to them.
"""

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, TypeVar

from siglip_jax.data.failures import protocol_of, public, retrying
from siglip_jax.data.remote import filesystem
from siglip_jax.data.storage import open_binary

# Seconds between the tries of what a job writes, and after which no other is begun: what is
# computed is worth more than an image that can be fetched again. The packages try before that.
PAUSES, PATIENCE = (0.5, 2.0, 5.0, 15.0, 30.0, 60.0), 180.0
KEPT = "what is finished is kept, and the same command goes on behind it"
_WRITTEN = ("s3", "s3a", "gs", "gcs", "memory")
_S3 = ("s3", "s3a")
_Result = TypeVar("_Result")


class Version(NamedTuple):
    """An object as somebody wrote it: what is in it, and what the store calls that, if it does."""

    data: bytes
    tag: str | None = None


class Changed(ValueError):
    """An object that only this process should write is another one than it wrote."""


class _Condition(ValueError):
    """The store says that something is there already, or something else."""


class BucketPath:
    """An object in a bucket, or all whose names begin so.

    Attributes:
      where: its URL.
      put: bytes and SHA-256 of what `write_bytes` has written through this very instance.

    Methods that are called as those of `Path` do what those do. All of them raise a ValueError
    of one line, and a FileNotFoundError if there is no such object.

    >>> folder = BucketPath("memory://bucket/out")
    >>> (folder / "data" / "a.txt").write_bytes(b"abc")
    >>> (folder / "data/a.txt").read_bytes(), (folder / "b").exists(), folder.children()
    (b'abc', False, ['data'])
    """

    def __init__(self, where: str) -> None:
        self.where = where.rstrip("/")
        self.put = 0, ""

    def __truediv__(self, name: str) -> "BucketPath":
        return BucketPath(f"{self.where}/{name}")

    def __str__(self) -> str:
        return public(self.where)

    def __repr__(self) -> str:
        return f"BucketPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketPath) and other.where == self.where

    def __hash__(self) -> int:
        return hash(self.where)

    @property
    def name(self) -> str:
        return self.where.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    def relative_to(self, folder: "BucketPath") -> PurePosixPath:
        return PurePosixPath(self.where.removeprefix(f"{folder.where}/"))

    def resolve(self) -> "BucketPath":
        return self

    def mkdir(self, *, exist_ok: bool = True) -> None:
        """There is nothing to make."""

    def exists(self) -> bool:
        try:
            # By its first byte: a listing may be an old one, and a HEAD says no reason.
            self._asked(lambda fs, path: fs.cat_file(path, start=0, end=1))
        except FileNotFoundError:
            return False
        except ValueError as error:
            if error.__cause__ is None or _code(error.__cause__) != "InvalidRange":
                raise  # which an object without a first byte has
        return True

    def read_bytes(self) -> bytes:
        return self._asked(lambda fs, path: fs.cat_file(path))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def read_all(self, names: Sequence[str]) -> list[tuple[str, bytes]]:
        """What is in several objects below, many fetched at a time."""

        def read(fs: Any, path: str) -> dict[str, bytes]:
            return fs.cat([f"{path}/{name}" for name in names]) if names else {}

        found = {path.rpartition("/")[2]: data for path, data in self._asked(read).items()}
        return [(name, found[name]) for name in names]

    def children(self) -> list[str]:
        """The names below, up to the next slash; none where there is nothing."""
        try:
            found = self._asked(lambda fs, path: fs.ls(path, detail=False))
        except FileNotFoundError as error:
            cause = error.__cause__ and error.__cause__.__cause__
            if "bucket" in str(cause) and "exist" in str(cause):
                bucket = "/".join(self.where.split("/")[:3])
                raise ValueError(f"{self}: there is no bucket {public(bucket)}") from None
            return []
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def sizes(self) -> dict[str, int]:
        """Bytes of each object directly below."""
        try:
            found = self._asked(lambda fs, path: fs.ls(path, detail=True))
        except FileNotFoundError:
            return {}
        return {one["name"].rpartition("/")[2]: one["size"] for one in found}

    def unlink(self, *, missing_ok: bool = False) -> None:
        try:
            self._asked(lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def write_bytes(self, data: bytes) -> None:
        """In one put; what is there gives way.

        Raises:
          ValueError: one line, which says that the job may go on.
        """
        self._put(lambda fs, path: fs.pipe_file(path, data))
        self.put = len(data), hashlib.sha256(data).hexdigest()

    def replace_with(self, data: bytes, before: Version | None) -> Version:
        """Writes `data` where `before`, or with None nothing, is there; what is there now.

        Stores compare by themselves where something is to be new, and S3 where it is not; for
        what others replace it is read first.

        Raises:
          Changed: if something else is there. Not if that is `data`: a put may have succeeded
            whose answer was lost.
        """
        condition: dict[str, Any] = {"mode": "create"}
        if before is not None:
            if before.tag is None:
                there = self.version()
                if there is None or there.data != before.data:
                    return self._as_wanted(there, data)
                before = there
            condition = {} if before.tag is None else {"IfMatch": before.tag}

        def put(fs: Any, path: str) -> Any:
            try:
                return fs.pipe_file(path, data, **condition)
            except Exception as error:
                if isinstance(error, FileExistsError) or _code(error) == "PreconditionFailed":
                    raise _Condition("something else is there") from error
                if _code(error) == "ConditionalRequestConflict":  # another put is under way
                    raise TimeoutError("the object is being written") from error
                raise

        try:
            answer = self._put(put)
        except _Condition:
            return self._as_wanted(self.version(), data)
        tag = answer.get("ETag") if isinstance(answer, dict) else None
        return Version(data, tag if protocol_of(self.where) in _S3 else None)

    def _as_wanted(self, there: Version | None, data: bytes) -> Version:
        if there is None or there.data != data:
            raise Changed(f"{self} is another than this process wrote")
        return there

    def version(self) -> Version | None:
        """What is there now, None for nothing."""
        try:
            tag = None
            if protocol_of(self.where) in _S3:
                # Before it is read: of what is written in between it is not the tag.
                tag = self._asked(lambda fs, path: fs.info(path, refresh=True)["ETag"])
            return Version(self.read_bytes(), tag)
        except FileNotFoundError:
            return None

    def _asked(self, action: Callable[[Any, str], _Result]) -> _Result:
        try:
            fs, path = filesystem(self.where, written=True)
            return retrying(self.where, lambda: action(fs, path))
        except ValueError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise _missing(self) from error
            raise

    def _put(self, action: Callable[[Any, str], _Result]) -> _Result:
        fs, path = filesystem(self.where, written=True)
        try:
            return retrying(self.where, lambda: action(fs, path), PAUSES, PATIENCE)
        except ValueError as error:
            if isinstance(error.__cause__, _Condition):
                raise error.__cause__ from None
            raise ValueError(f"{error}; {KEPT}") from error.__cause__


# A folder of a job, or a file in it.
Place = Path | BucketPath


def folder_at(where: str | os.PathLike[str] | BucketPath) -> Place:
    """A folder here, or of a bucket.

    >>> folder_at("a/b"), folder_at("s3://bucket/out/")
    (PosixPath('a/b'), BucketPath('s3://bucket/out'))
    """
    if isinstance(where, BucketPath):
        return where
    if isinstance(where, str) and protocol_of(where) not in ("", "file"):
        return BucketPath(where)
    return Path(where).expanduser()


def opened(file: Place) -> contextlib.AbstractContextManager[Path | IO[bytes]]:
    """A file for pyarrow to read parts of: a path as it is, of an object what is asked for."""
    if isinstance(file, Path):
        return contextlib.nullcontext(file)
    try:
        return open_binary(file.where)
    except ValueError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise _missing(file) from error
        raise


def whole(file: Place) -> Path | IO[bytes]:
    """What NumPy and pyarrow read a file from whose most will be read."""
    return file if isinstance(file, Path) else io.BytesIO(file.read_bytes())


def check_bucket(folder: BucketPath, record: str) -> bool:
    """Whether the record of a job is there already.

    Raises:
      ValueError: if nothing can be written there, or other objects are.
    """
    if (protocol := protocol_of(folder.where)) not in _WRITTEN:
        raise ValueError(
            f"{folder}: a job cannot write to {protocol}://; give a folder, gs://... or s3://..."
        )
    there = folder.children()
    if there and record not in there:
        raise ValueError(f"{folder} is not empty and holds no job; choose another name")
    return bool(there)


def _missing(where: BucketPath) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no such object", str(where))


def _code(error: BaseException) -> str | None:
    """Amazon's word for what went wrong."""
    answer = getattr(error.__cause__, "response", None)
    return answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
