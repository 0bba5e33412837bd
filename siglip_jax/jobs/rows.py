"""The rows of one shard, filled as its items are prepared and embedded."""

from typing import Any, NamedTuple

import numpy as np


class Prepared(NamedTuple):
    """An item, ready for the device or in error.

    Attributes:
      key: of the item.
      text: of the item.
      width, height: of the decoded picture, in pixels.
      example: what the model takes: a picture, token ids, or both.
      error: why there is no example.
    """

    key: str
    text: str | None = None
    width: int | None = None
    height: int | None = None
    example: Any = None
    error: str | None = None


class Rows:
    """One shard's rows. Items are added in order; embeddings come later, in the same order."""

    def __init__(self, shard: int, name: str) -> None:
        self.shard, self.name = shard, name
        self.items: list[Prepared] = []
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, item: Prepared) -> None:
        """Takes an item, but not its example."""
        self.items.append(item._replace(example=None))

    def fill(self, embeddings: tuple[np.ndarray, ...]) -> None:
        """Embeddings (m, d) of the next m items without error; of both towers for pairs."""
        self._parts.append(embeddings)

    @property
    def errors(self) -> list[tuple[str, str]]:
        return [(item.key, item.error) for item in self.items if item.error is not None]

    @property
    def good(self) -> np.ndarray:
        """Places (n,) of the items without error."""
        return np.flatnonzero([item.error is None for item in self.items])

    def embeddings(self, width: int) -> tuple[np.ndarray, ...]:
        """Embeddings (n, width) float32 of the items without error, for each tower."""
        if not self._parts:
            return (np.zeros((0, width), np.float32),) * 2
        return tuple(np.concatenate(parts) for parts in zip(*self._parts, strict=True))
