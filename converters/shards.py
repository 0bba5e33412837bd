"""Weights in several files, with an index that says which tensor is in which."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import numpy as np

from siglip_jax.json_text import parsed, read_text
from siglip_jax.weights.reader import Header, Reader

from .json_file import plain_name

INDEX = ".index.json"
_MAP = "weight_map"
Part = Callable[[Iterable[str]], str]


class ShardsReader:
    """An open index and its shards (see `weights.reader.Reader`).

    Args:
      path: the index, such as `model.safetensors.index.json`.
      opener: opens one shard.
      part: given all names, the prefix of those that are wanted: only shards that hold one are
        opened. `left` are the other names.

    Raises:
      ValueError: if a shard is missing or damaged, or does not hold what the index says.
    """

    subtree = ""
    ignored: tuple[str, ...] = ()

    def __init__(
        self, path: Path, opener: Callable[[Path], Reader], part: Part | None = None
    ) -> None:
        self.path = str(path)
        try:
            named = {str(n): str(f) for n, f in parsed(read_text(path))[_MAP].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not an index of shards") from error
        for name in set(named.values()):
            plain_name(name, str(path))
            if name.endswith(INDEX):
                raise ValueError(f"{path} names another index as a shard: {name}")
        shards = {name: path.with_name(file) for name, file in named.items()}
        prefix = part(shards) if part else ""
        self.left = tuple(name for name in shards if not name.startswith(prefix))
        shards = {name: file for name, file in shards.items() if name.startswith(prefix)}
        self.files = tuple(sorted(set(shards.values())))
        if missing := [file.name for file in self.files if not file.is_file()]:
            raise ValueError(f"{path} names shards that are not there: {', '.join(missing)}")
        self._readers: dict[Path, Reader] = {}
        try:
            for file in self.files:
                self._readers[file] = opener(file)
            self._check(shards, prefix)
        except BaseException:
            self.close()
            raise
        self._shards = shards
        self.shapes: dict[str, Header] = {
            name: self._readers[file].shapes[name] for name, file in shards.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`; raises as the shard's own reader does."""
        return self._readers[self._shards[name]].read(name)

    def _check(self, shards: dict[str, Path], prefix: str) -> None:
        stored = ((name, file) for file, reader in self._readers.items() for name in reader.shapes)
        inside = {(name, file) for name, file in stored if name.startswith(prefix)}
        listed = set(shards.items())
        for wrong, what in (
            (listed - inside, "are not where it says"),
            (inside - listed, "it does not list"),
        ):
            if wrong:
                name, file = min(wrong)
                raise ValueError(
                    f"{self.path} does not match its shards: {len(wrong)} tensors {what}, "
                    f"{name} ({file.name}) for one"
                )
