"""The rows that items become: prepared, embedded, or in error."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

NOT_FINITE = "the model makes NaN or infinity of it"


class Prepared(NamedTuple):
    """An item, ready for the device or in error.

    Attributes:
      key: of the item.
      text: of the item.
      width, height: of the decoded image, in pixels.
      example: what the model takes: an image, token ids, or both. With an error it stands
        in for the item where batches must not depend on errors.
      error: why there is nothing to embed.
      cause: the exception behind `error`, where there was one.
    """

    key: str
    text: str | None = None
    width: int | None = None
    height: int | None = None
    example: Any = None
    error: str | None = None
    cause: ValueError | None = None


class Rows:
    """Items in order, and their embeddings, which come later in the same order.

    Args:
      shard, name: of the items' shard in a bulk job.
      filled: called with the embeddings of each batch when they are back, in the thread
        that waits for them, instead of keeping them.
      join: makes one array of those of the batches.
    """

    def __init__(
        self,
        shard: int = 0,
        name: str = "",
        filled: Callable[[tuple[Any, ...]], None] | None = None,
        join: Callable[[tuple[Any, ...]], Any] = np.concatenate,
    ) -> None:
        self.shard, self.name = shard, name
        self.items: list[Prepared] = []
        self._parts: list[tuple[Any, ...]] = []
        self._join = join
        self.fill = filled or self._parts.append

    def add(self, item: Prepared) -> None:
        """Takes an item, but not its example."""
        self.items.append(item._replace(example=None))

    @property
    def errors(self) -> list[tuple[str, str]]:
        """Key and reason of the items in error."""
        return [(item.key, item.error) for item in self.items if item.error is not None]

    @property
    def good(self) -> np.ndarray:
        """Indices (n,) of the items without error."""
        return np.flatnonzero([item.error is None for item in self.items])

    def settle(self) -> list[int]:
        """Once all embeddings are back: puts in error what has none that is finite.

        NaN and infinity have no nearest label, and JSON and indexes have no place for them.

        Returns:
          Indices of the items that are in error from now on.
        """
        good = self.good
        if not self._parts or self._join is not np.concatenate or not len(good):
            return []
        z = tuple(np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        fine = np.all([np.isfinite(each.reshape(len(each), -1)).all(axis=1) for each in z], axis=0)
        self._parts = [tuple(each[fine] for each in z)]
        bad = [int(index) for index in good[~fine]]
        for index in bad:
            self.items[index] = self.items[index]._replace(error=NOT_FINITE)
        return bad

    def embeddings(self, width: int) -> tuple[Any, ...]:
        """Embeddings (n, width) float32 of the items without error, for each tower."""
        if not self._parts:
            return (np.zeros((0, width), np.float32),) * 2
        return tuple(self._join(parts) for parts in zip(*self._parts, strict=True))
