"""The rows that items become: prepared, embedded, or in error."""

import threading
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
      grid: rows and columns of its patches, where that is its own (NaFlex).
      kept: of the item (`siglip_jax.data.Item`).
      example: what the model takes: an image, token ids, or both. With an error it stands
        in for the item where batches must not depend on errors.
      error: why there is nothing to embed.
      cause: the exception behind `error`, where there was one.
      stamp: of the item's contents (`siglip_jax.data.stamps`).
      passing: the error may pass.
      rotated: the image carries an EXIF rotation, which is not applied.
    """

    key: str
    text: str | None = None
    width: int | None = None
    height: int | None = None
    example: Any = None
    error: str | None = None
    cause: ValueError | None = None
    stamp: str | None = None
    passing: bool = False
    rotated: bool = False
    grid: tuple[int, int] | None = None
    kept: dict[str, Any] | None = None


class Rows:
    """Items in order, and their embeddings, which come later in the same order.

    Args:
      shard, name: of the items' shard in a bulk job.
      filled: called with the embeddings of each batch when they are back, in the thread
        that waits for them, instead of keeping them.
      join: makes one array of those of the batches.
      failed: called with what a batch met with on the device, before the pipeline raises it.

    Attributes:
      returned: how many items are back: embedded, or given up.
    """

    def __init__(
        self,
        shard: int = 0,
        name: str = "",
        filled: Callable[[tuple[Any, ...]], None] | None = None,
        join: Callable[[tuple[Any, ...]], Any] = np.concatenate,
        failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self.shard, self.name = shard, name
        self.items: list[Prepared] = []
        self.returned, self.failed = 0, failed
        self._lock = threading.Lock()
        self._parts: list[tuple[Any, ...]] = []
        self._join = join
        self._places: list[int] = []  # of the items whose embeddings come, in that order
        self._again: dict[str, int] = {}
        self.fill = filled or self._parts.append

    def back(self, count: int) -> None:
        """So many more are back; from any thread."""
        with self._lock:
            self.returned += count

    def add(self, item: Prepared) -> None:
        """Takes an item, but not its example; in the place of one that is tried again."""
        place = self._again.pop(item.key, len(self.items))
        if item.example is not None:
            self._places.append(place)
        self.items[place : place + 1] = [item._replace(example=None)]

    def again(self) -> set[str]:
        """The keys of the items whose error may pass; if they are added again, they are mended."""
        self._again = {item.key: n for n, item in enumerate(self.items) if item.passing}
        self.back(-len(self._again))
        return set(self._again)

    @property
    def passing(self) -> int:
        """How many errors may pass."""
        return sum(item.passing for item in self.items)

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
        if not self._parts or self._join is not np.concatenate:
            return []
        z, places = self._whole(), sorted(self._places)
        fine = np.all([np.isfinite(each.reshape(len(each), -1)).all(axis=1) for each in z], axis=0)
        self._parts = [tuple(each[fine] for each in z)]
        self._places = [place for place, is_fine in zip(places, fine, strict=True) if is_fine]
        bad = sorted(set(places).difference(self._places))
        for index in bad:
            self.items[index] = self.items[index]._replace(error=NOT_FINITE)
        return bad

    def embeddings(self, width: int) -> tuple[Any, ...]:
        """Embeddings (n, width) float32 of the items without error, for each tower."""
        if not self._parts:
            return (np.zeros((0, width), np.float32),) * 2
        return self._whole()

    def _whole(self) -> tuple[Any, ...]:
        """What came back, in the order of the items."""
        whole = tuple(self._join(parts) for parts in zip(*self._parts, strict=True))
        if self._places == sorted(self._places):
            return whole
        order = np.argsort(self._places)
        return tuple(part[order] for part in whole)
