"""Folders and files that only their user can have written, as code that is run must be."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private(folder: Path) -> str | None:
    """Makes `folder` of mode 0700; why it is not its user's alone, None if it is.

    One that others may only read has let nobody in, and is closed to them.

    Raises:
      OSError: if it cannot be made or opened.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as above:
    ...     make_private(Path(above, "a", "b"))
    ...     oct(Path(above, "a", "b").stat().st_mode)[-3:]
    ...     Path(above, "a").chmod(0o777)
    ...     make_private(Path(above, "a")).removeprefix(above)
    '700'
    '/a can be written by other users (mode 777); chmod 700 it, or remove it'
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    with opened(folder) as handle:
        return why_shared(folder, handle)


@contextlib.contextmanager
def opened(path: Path | str, folder: int | None = None) -> Iterator[int]:
    """A descriptor to read from, so that what was examined is what is read."""
    # Without waiting, as the opening of a named pipe would.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)


def why_shared(name: Path | str, handle: int) -> str | None:
    """Why what `handle` is open on, a folder or a file, may be another user's; None if not."""
    state = os.fstat(handle)
    mode = stat.S_IMODE(state.st_mode)
    folder = stat.S_ISDIR(state.st_mode)
    if state.st_uid != os.getuid():
        return f"{name} belongs to another user (uid {state.st_uid}); remove it"
    if not folder and not stat.S_ISREG(state.st_mode):
        return f"{name} is no regular file; remove it"
    if mode & _OTHERS_WRITE:
        right = "700" if folder else "600"
        return (
            f"{name} can be written by other users (mode {mode:o}); chmod {right} it, or remove it"
        )
    if folder and mode & 0o077:
        os.fchmod(handle, 0o700)
    return None
