"""Outputs that appear whole or not at all."""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Generator
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
        if not replace:
            try:
                move_new(temporary, path)
            except FileExistsError:
                said = f"{path} has appeared meanwhile; choose another name or remove it"
                raise ValueError(said) from None
        elif temporary.is_dir() and path.is_dir():
            exchange(temporary, path)
            shutil.rmtree(temporary, ignore_errors=True)
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


def exchange(a: Path, b: Path) -> None:
    """Two files or folders change their names, in one step where the file system can do that."""
    if _renamed(a, b, _EXCHANGE):
        return
    aside = _beside(b)
    b.rename(aside)
    try:
        a.rename(b)
    except BaseException:
        aside.rename(b)
        raise
    aside.rename(a)


def move_new(here: Path, there: Path) -> None:
    """Renames a file or folder to a name that is free.

    Raises:
      FileExistsError: if it is not.
    """
    if _renamed(here, there, _NO_REPLACE):
        return
    if there.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(there))
    here.rename(there)


# Flags of Linux's renameat2.
_NO_REPLACE, _EXCHANGE = 1, 2
_HERE = -100  # AT_FDCWD: paths are as the process sees them


def _renamed(a: Path, b: Path, flag: int) -> bool:
    """Whether the system can rename so, and has."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_HERE, os.fsencode(a), _HERE, os.fsencode(b), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(a), None, str(b))
