"""Embeddings of labels, made once for all requests that name the same."""

import asyncio
import collections
from collections.abc import Awaitable, Callable
from typing import Literal

import numpy as np

LabelSet = tuple[tuple[str, ...], tuple[str, ...]]  # labels, templates
Found = Literal["hit", "miss"]


class LabelSets:
    """Keeps what `embed` made, the least used forgotten first. For one event loop.

    Args:
      embed: from labels and templates to (n, d).
      memory: bytes of embeddings to keep.
    """

    def __init__(
        self,
        embed: Callable[[tuple[str, ...], tuple[str, ...]], Awaitable[np.ndarray]],
        memory: int,
    ) -> None:
        self._embed, self._memory, self._used = embed, memory, 0
        self._kept: collections.OrderedDict[LabelSet, np.ndarray] = collections.OrderedDict()
        self._coming: dict[LabelSet, asyncio.Task[np.ndarray]] = {}

    async def get(
        self, labels: tuple[str, ...], templates: tuple[str, ...]
    ) -> tuple[np.ndarray, Found]:
        """Embeddings (n, d), and whether they were there or on their way.

        Raises:
          Exception: whatever `embed` raised; nothing is kept of that.
        """
        key = (labels, templates)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key], "hit"
        task = self._coming.get(key)
        found: Found = "miss" if task is None else "hit"
        if task is None:
            task = asyncio.create_task(self._make(key))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._coming[key] = task
        # Who asked first may go away, and others wait for the same.
        return await asyncio.shield(task), found

    async def _make(self, key: LabelSet) -> np.ndarray:
        try:
            z = await self._embed(*key)
        finally:
            del self._coming[key]
        z.flags.writeable = False
        self._kept[key] = z
        self._used += z.nbytes
        while self._used > self._memory and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._used -= oldest.nbytes
        return z
