"""Reading a file that may be anything: a regular one, of a size that fits."""

import errno
import os
import stat

# A file of more would not fit into memory.
LARGEST = 1 << 30


def read_regular(path: str | os.PathLike[str], most: int = LARGEST) -> bytes:
    """The bytes of a file.

    Raises:
      OSError: if it cannot be read, is no regular file, such as a named pipe or a device, or
        has more than `most` bytes; says which.

    >>> read_regular("/dev/zero")
    Traceback (most recent call last):
    OSError: [Errno 22] it is no regular file: '/dev/zero'
    """
    # An open of a named pipe would wait for whoever may write to it.
    with open(path, "rb", buffering=0, opener=_without_waiting) as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
        if state.st_size > most:
            said = f"it has {state.st_size:,} bytes, more than the {most:,} that fit here"
            raise OSError(errno.EFBIG, said, os.fspath(path))
        # One that grows meanwhile is cut; what the kernel makes up has no size.
        return file.read(state.st_size or 1 << 20)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
