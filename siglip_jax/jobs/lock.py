"""One process on an output folder, or several that know of each other."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

NAME = ".lock"


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool) -> Iterator[None]:
    """Holds the folder until the block ends, or the process does, however it does.

    Raises:
      ValueError: if another process holds it; names it.
    """
    with (folder / NAME).open("a+") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{folder}: another job is writing to it ({_holder(file.read())}); wait until it "
                "ends, or start all of them as shared"
            ) from None
        except OSError as error:
            raise ValueError(
                f"{folder}: its file system cannot lock files ({error.strerror}); choose another"
            ) from error
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "shared": shared}
        # With several, the last to come names itself.
        file.truncate(0)
        file.write(json.dumps(mine))
        file.flush()
        yield


def _holder(text: str) -> str:
    try:
        there = json.loads(text)
        together = ", shared with others" if there["shared"] else ""
        return f"process {there['pid']} on {there['host']}{together}"
    except (ValueError, KeyError, TypeError):
        return "it does not say which"
