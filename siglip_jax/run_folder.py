"""The folder of a run or a job: which one it belongs to, and which process writes to it.

A record, a file of JSON written first, says what is computed in the folder. The same call
goes on with it; another one is refused, and what differs is named.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from siglip_jax.messages import reason

LOCK, _CLAIMING = ".lock", ".claiming"
# What was made for a folder that may turn out not to be needed, the last first.
_made: dict[Path, list[Path]] = {}


class Difference(NamedTuple):
    """A value that one record has otherwise than another; `name` is that of nested keys.

    >>> str(Difference("data.seed", 1, 2))
    'data.seed is 1 there and 2 here'
    """

    name: str
    there: Any
    here: Any

    def __str__(self) -> str:
        return f"{self.name} is {self.there!r} there and {self.here!r} here"


def make_run_folder(folder: Path, record: str, what: str) -> bool:
    """Makes `folder` if need be, and says whether it has its `record` already.

    Args:
      record: name of the file that says what the folder holds.
      what: "run" or "job", for messages.

    Raises:
      ValueError: if it is a file, holds other files, or cannot be made.
    """
    if folder.is_file():
        raise ValueError(f"{folder} is a file; choose a folder")
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _made.setdefault(folder, missing)
    except OSError as error:
        raise ValueError(f"{folder} cannot be made: {reason(error)}") from error
    if (folder / record).exists():
        return True
    # What begins with a dot is the lock, or what a killed process left behind.
    if any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no {what}; choose another folder")
    return False


def claim_record(path: Path, write: Callable[[], None]) -> bool:
    """Has the record at `path` written if there is none; whether it was there already.

    Of two processes that begin at the same time one comes second, and finds the other's.
    """
    with (path.parent / _CLAIMING).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return True
        write()
        return False


def differences(
    there: dict[str, Any], here: dict[str, Any], free: Collection[str] = ()
) -> list[Difference]:
    """How two records of plain JSON types differ; keys in `free` may.

    >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, free=("a.c",))
    [Difference(name='a.b', there=1, here=3)]
    """
    return list(_differences(there, json.loads(json.dumps(here)), free, ""))


def _differences(there: Any, here: Any, free: Collection[str], where: str) -> Iterator[Difference]:
    for key in dict.fromkeys([*there, *here]):
        a, b, name = there.get(key), here.get(key), f"{where}{key}"
        if name in free or a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, free, f"{name}.")
        else:
            yield Difference(name, a, b)


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool = False, what: str = "job") -> Iterator[None]:
    """Holds the folder until the block ends, or the process does, however it does.

    Args:
      shared: with others that share it too.
      what: "run" or "job", for messages.

    Raises:
      ValueError: if another process holds it; names it.
    """
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            advice = ", or start all of them as shared" if what == "job" else ""
            raise ValueError(
                f"{folder}: another {what} is writing to it ({_holder(file.read())}); wait until "
                f"it ends{advice}"
            ) from None
        except OSError as error:
            raise ValueError(
                f"{folder}: its file system cannot lock files ({reason(error)}); choose another"
            ) from error
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "shared": shared}
        # With several, the last to come names itself.
        file.truncate(0)
        file.write(json.dumps(mine))
        file.flush()
        try:
            yield
        except BaseException:
            _forget(folder, file)
            raise


def _forget(folder: Path, lock: IO[str]) -> None:
    """Removes the folder of what was refused before it wrote anything."""
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no other process shares it
        if {entry.name for entry in folder.iterdir()} <= {LOCK, _CLAIMING}:
            (folder / _CLAIMING).unlink(missing_ok=True)
            (folder / LOCK).unlink()
            for made in _made.pop(folder, ()):
                made.rmdir()


def _holder(text: str) -> str:
    try:
        there = json.loads(text)
        together = ", shared with others" if there["shared"] else ""
        return f"process {there['pid']} on {there['host']}{together}"
    except (ValueError, KeyError, TypeError):
        return "it does not say which"
