"""Files that are whole and on the disk before anything says that they are there."""

import contextlib
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from siglip_jax.jobs.bucket import BucketPath, Place
from siglip_jax.weights.staging import staged


class DiskFull(OSError):
    """There is no room for what a job has to write. What it has written is whole."""


@contextlib.contextmanager
def durable(path: Path) -> Iterator[Path]:
    """`staged`, durably, for the files of a job.

    Raises:
      DiskFull: if it does not fit; nothing is left of it.
    """
    try:
        with staged(path, durable=True) as temporary:
            yield temporary
    except OSError as error:
        if not no_room(error):
            raise
        raise DiskFull(
            error.errno,
            f"{path} could not be written: {os.strerror(error.errno or errno.ENOSPC)}; "
            "all finished shards are kept, and the same command goes on once there is room",
        ) from error


def no_room(error: OSError) -> bool:
    """Whether a disk or a quota is full; pyarrow may only say so in words."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)


@contextlib.contextmanager
def written(path: Place) -> Iterator[IO[bytes]]:
    """A file of a job to write to, which is there once the block ends, and whole.

    Raises:
      DiskFull: if it does not fit.
      ValueError: if a bucket does not take it.
    """
    if isinstance(path, BucketPath):
        held = io.BytesIO()
        yield held
        path.write_bytes(held.getvalue())
        return
    with durable(path) as temporary, temporary.open("wb") as file:
        yield file


def write_json(path: Place, value: Any) -> None:
    """`value` as a file of JSON, durably; names that are no Unicode come back as they were."""
    with written(path) as file:
        file.write(json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """What `write_json` writes."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def sha256(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def measured(path: Place) -> tuple[int, str]:
    """Bytes and digest of a file that was written."""
    if isinstance(path, BucketPath):
        # Of what was put, not of what is there.
        return path.put
    return path.stat().st_size, sha256(path)
