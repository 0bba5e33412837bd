"""Opening a checkpoint, whatever it is, or a part of one (`file.npz:img`)."""

import re
from pathlib import Path
from typing import Self

import numpy as np

from siglip_jax.messages import near_file, suggestions
from siglip_jax.weights.npz import NpzReader
from siglip_jax.weights.reader import Header, Reader
from siglip_jax.weights.tensorstore_folder import FolderReader


class Subtree:
    """A part of an open checkpoint, its names relative to that part (see `reader.Reader`).

    Raises:
      ValueError: if the checkpoint has no tensors there.
    """

    def __init__(self, whole: Reader, subtree: str) -> None:
        self.path = f"{whole.path}:{subtree}"
        self.subtree = subtree.strip("/")
        self.ignored = whole.ignored
        self._whole = whole
        prefix = f"{self.subtree}/"
        self.shapes: dict[str, Header] = {
            name.removeprefix(prefix): header
            for name, header in whole.shapes.items()
            if name.startswith(prefix)
        }
        if not self.shapes:
            parts = {n.rsplit("/", k)[0] for n in whole.shapes for k in range(1, n.count("/") + 1)}
            near = suggestions(self.subtree, sorted(parts), 3)
            offer = near or sorted(part for part in parts if "/" not in part)
            raise ValueError(
                f"{whole.path} has no subtree {self.subtree!r}; there is {', '.join(offer)}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._whole.close()

    def read(self, name: str) -> np.ndarray:
        """The tensor `name` of this part; raises as the whole does."""
        return self._whole.read(f"{self.subtree}/{name}")


def open_big_vision(source: str | Path) -> Reader:
    """Opens a big_vision checkpoint for reading; use it as a context manager.

    Args:
      source: a `.npz` file, or a tensorstore checkpoint as `FolderReader` takes
        it; a ':' and a part of the tree after it select that part, as in
        `file.npz:img`. A path that exists as it stands is taken as it stands.

    Raises:
      ValueError: if there is nothing of that name (near names are suggested) or
        it is no checkpoint.
    """
    path = Path(source)
    if _exists(path):
        return _open(path)
    # big_vision: the same notation, but there a path without any '/' is refused.
    if match := re.fullmatch(r"(.+):([\w/-]+)", str(source)):
        whole, subtree = Path(match[1]), match[2]
        if _exists(whole):
            reader = _open(whole)
            try:
                return Subtree(reader, subtree)
            except ValueError:
                reader.close()
                raise
        if "://" not in str(source):
            path = whole
    if "://" in str(source):
        raise ValueError(f"{source} is not on this machine: download it and give the local path")
    raise ValueError(f"{path} does not exist{_near(path)}")


def _exists(path: Path) -> bool:
    return path.exists() or Path(f"{path}-LAST").is_file()


def _open(path: Path) -> Reader:
    is_npz = path.is_file() and not path.name.endswith("-LAST")
    return NpzReader(path) if is_npz else FolderReader(path)


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return near_file(path)
    return near_file(path, [entry.name.removesuffix("-LAST") for entry in path.parent.iterdir()])
