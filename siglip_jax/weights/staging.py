"""Outputs that appear whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Generator, Iterable
from pathlib import Path

_unfinished: set[Path] = set()


@contextlib.contextmanager
def staged(
    path: Path, *, durable: bool = False, replace: bool = True
) -> Generator[Path, None, None]:
    """A temporary sibling of `path`, renamed to it when the block succeeds.

    The block creates a file or a folder there. If it fails, what it wrote is
    removed and `path` is untouched.

    Args:
      durable: a file is on the disk before it has its name, and the name is before this
        returns: what is written afterwards may rely on it even after a power cut.
      replace: what is at `path` already gives way, a folder too; if False it is an error.

    Raises:
      ValueError: if the folder to write to does not exist, or `path` does and may not be
        replaced.
    """
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: the folder {path.parent} does not exist")
    if not replace and path.exists():
        raise ValueError(f"{path} exists already; choose another name or remove it")
    temporary = _beside(path)
    try:
        with unfinished(temporary):
            yield temporary
        if durable:
            _sync(temporary)
        if temporary.is_dir() and path.is_dir():
            aside = _beside(path)
            move_all([(path, aside), (temporary, path)])
            shutil.rmtree(aside, ignore_errors=True)
        else:
            temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise
    if durable:
        with contextlib.suppress(OSError):  # some network file systems cannot
            _sync(path.parent)


@contextlib.contextmanager
def unfinished(path: Path) -> Generator[None, None, None]:
    """`path` is of no use before the block ends, if the process ends before it."""
    _unfinished.add(path)
    try:
        yield
    finally:
        _unfinished.discard(path)


def remove_unfinished() -> None:
    """Removes what is half written now; for a process that is about to end."""
    for path in list(_unfinished):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move_all(moves: Iterable[tuple[Path, Path]]) -> None:
    """Renames each first path to the second, in order; if one fails, all are undone."""
    done: list[tuple[Path, Path]] = []
    try:
        for here, there in moves:
            here.rename(there)
            done.append((here, there))
    except BaseException:
        for here, there in reversed(done):
            there.rename(here)
        raise
