"""Files that are whole and on the disk before anything says that they are there."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def write_json(path: Path, value: Any) -> None:
    """`value` as a file of JSON, durably; names that are no Unicode come back as they were."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    with durable(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def sha256(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
