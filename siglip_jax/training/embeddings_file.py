"""Embeddings in a .npy file that is written row by row, and goes on where it was cut off."""

import collections
import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np

from siglip_jax.messages import reason


class EmbeddingsFile:
    """Rows (n, d) float32, in order; at `path` once all are there, beside it until then.

    Args:
      path: of the finished .npy file.
      shape: (n, d) of all rows.
      writes: whether this process is the one that writes; others only count.

    Attributes:
      rows: how many are there.
      bad: how many items are in error, those of interrupted runs included.
      reason: of the first of them in this run.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "z.npy"
    >>> with EmbeddingsFile(path, (2, 3)) as file:
    ...     file.add(None); file.add("b.jpg: not an image")
    ...     file.append(np.ones((2, 3), np.float32))
    ...     file.finish()
    >>> np.load(path).tolist()
    [[1.0, 1.0, 1.0], [nan, nan, nan]]
    """

    def __init__(self, path: Path, shape: tuple[int, int], *, writes: bool = True) -> None:
        self.path, self.shape, self._writes = path, shape, writes
        self._partial = path.with_name(f".{path.name}.partial")
        buffer = io.BytesIO()
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, header)
        self._header, self._row = buffer.getvalue(), 4 * shape[1]
        self._errors = collections.deque[str | None]()
        found = self._found()
        self.rows = shape[0] if path.is_file() else len(found)
        self.bad, self.reason = int(np.isnan(found[:, 0]).sum()), None

    def __enter__(self) -> Self:
        if self._writes:
            size = len(self._header) + self.rows * self._row
            with self._named():
                self._file = self._partial.open("r+b" if self.rows else "w+b")
                self._file.write(self._header)
                self._file.truncate(size)
                self._file.seek(size)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writes:
            self._file.close()

    def add(self, error: str | None) -> None:
        """Says of the next item, before its row is appended, whether it is in error."""
        self._errors.append(error)
        self.bad += error is not None
        self.reason = self.reason or error

    def append(self, z: np.ndarray) -> None:
        """Writes the next rows (m, d); those of items in error become NaN.

        Raises:
          OSError: in one line, if the disk is full.
        """
        bad = [self._errors.popleft() is not None for _ in range(len(z))]
        z = np.where(np.array(bad)[:, None], np.float32(np.nan), z).astype("<f4")
        self.rows += len(z)
        if self._writes:
            with self._named():
                self._file.write(z.tobytes())
                self._file.flush()

    def finish(self) -> None:
        """Puts the file, of which all rows are written, in its place."""
        if self._writes:
            with self._named():
                os.fsync(self._file.fileno())
                self._partial.replace(self.path)

    def discard(self) -> None:
        """Throws the rows away, so that the next run tries each image again."""
        if self._writes:
            self._partial.unlink()

    def _found(self) -> np.ndarray:
        """The whole rows of an unfinished file; none if it is of another shape."""
        rows = np.zeros((0, self.shape[1]), "<f4")
        if not self._partial.is_file():
            return rows
        with self._partial.open("rb") as file:
            if file.read(len(self._header)) != self._header:
                return rows
            count = (self._partial.stat().st_size - len(self._header)) // self._row
            count = min(count, self.shape[0])
            return np.fromfile(file, "<f4", count * self.shape[1]).reshape(count, -1)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Names the file in an OSError."""
        try:
            yield
        except OSError as error:
            raise OSError(f"{self.path} could not be written: {reason(error)}") from error
