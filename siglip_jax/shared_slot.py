"""Memory that two processes see: a file without a name, which ends with them.

Nothing of it is left behind however they end, and nothing has to be tracked or unlinked.
"""

import mmap
import os
import tempfile

import numpy as np


class Slot:
    """Bytes that a process and the child it hands `file` to can both read and write.

    Args:
      file: a descriptor of the parent's, in the child; default: a new file.

    >>> one = Slot()
    >>> other = Slot(os.dup(one.file))
    >>> one.bytes(3)[:] = 7
    >>> other.bytes(3).tolist()
    [7, 7, 7]
    >>> one.close(), other.close()
    (None, None)
    """

    def __init__(self, file: int | None = None) -> None:
        self.file = _nameless() if file is None else file
        self._bytes = np.zeros(0, np.uint8)

    def bytes(self, size: int) -> np.ndarray:
        """The first `size` of them, (size,) uint8; there are as many as were ever asked for.

        Raises:
          OSError: if there is no memory.
        """
        if size > len(self._bytes):
            if os.fstat(self.file).st_size < size:
                os.ftruncate(self.file, size)
            # The former mapping ends with the arrays over it.
            self._bytes = np.frombuffer(mmap.mmap(self.file, size), np.uint8)
        return self._bytes[:size]

    def close(self) -> None:
        """Arrays that are still held stay as they are."""
        os.close(self.file)


def _nameless() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("siglip_jax")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
