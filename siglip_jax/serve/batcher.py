"""Examples of many requests, embedded together: whatever waits when the device is free.

No timer: a request that comes alone is computed alone, and while a batch is computed the next
one fills up. Batches have few sizes, each compiled before the first request.
"""

import collections
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, NamedTuple

import numpy as np

from siglip_jax.scoring.batches import padded, stacked
from siglip_jax.scoring.pipeline import Pipeline
from siglip_jax.scoring.rows import NOT_FINITE, Rows
from siglip_jax.serve.metrics import Metrics

# One batch is computed, and one is on its way: what waits longer can still join a larger one.
IN_FLIGHT = 1


def batch_sizes(most: int, devices: int = 1) -> tuple[int, ...]:
    """Powers of two up to `most`, each a multiple of the devices.

    >>> batch_sizes(32), batch_sizes(24, devices=8)
    ((1, 2, 4, 8, 16, 32), (8, 16, 24))
    """
    sizes = [devices]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return tuple(sizes)


def taken(waiting: int, sizes: Sequence[int]) -> int:
    """How many of those that wait to take for a batch: all, unless much of it would be padding.

    More than one row and an eighth of a batch are not padded: what fills the next smaller size
    goes at once, and the rest joins what comes meanwhile.

    >>> [taken(waiting, (1, 2, 4, 8, 16, 32)) for waiting in (3, 5, 7, 17, 27, 28, 40)]
    [3, 4, 7, 16, 16, 28, 32]
    """
    if waiting >= sizes[-1]:
        return sizes[-1]
    fitting = [size for size in sizes if size <= waiting]
    size = next(size for size in sizes if size >= waiting)
    padding = size - waiting
    return waiting if not fitting or padding <= max(1, size // 8) else fitting[-1]


class NotFinite(ValueError):
    """The model makes NaN or infinity of an example.

    Attributes:
      index: of the example, among those that were given together.
    """

    def __init__(self, index: int) -> None:
        super().__init__(NOT_FINITE)
        self.index = index


class _Group:
    """Examples that were given together, and their rows as they come back."""

    def __init__(self, count: int) -> None:
        self.result: Future[np.ndarray] = Future()
        self._rows: list[Any] = [None] * count
        self._left = count

    def fill(self, index: int, row: np.ndarray) -> None:
        """In the one thread that batches come back in."""
        self._rows[index] = row
        self._left -= 1
        if not np.isfinite(row).all():
            self.fail(NotFinite(index))
        elif not self._left:
            with contextlib.suppress(InvalidStateError):  # its client has gone
                self.result.set_result(np.stack(self._rows))

    def fail(self, error: Exception) -> None:
        with contextlib.suppress(InvalidStateError):
            self.result.set_exception(error)


class _Waiting(NamedTuple):
    group: _Group
    index: int
    example: Any
    since: float


class Batcher:
    """Gives examples to a pipeline, from any thread.

    Args:
      pipeline: of one tower; made with `in_flight=IN_FLIGHT`.
      sizes: of batches, ascending.
      tower: "images" or "texts", for metrics.
    """

    def __init__(
        self, pipeline: Pipeline, sizes: Sequence[int], tower: str, metrics: Metrics
    ) -> None:
        self._pipeline, self._sizes = pipeline, tuple(sizes)
        self._tower, self._metrics = tower, metrics
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._changed, self._closed = threading.Condition(), False
        self._told: Exception | None = None  # what the requests of a batch were last told
        self._thread = threading.Thread(target=self._run, name=f"batch {tower}", daemon=True)

    def start(self, example: Any, stopped: Callable[[], bool] = lambda: False) -> None:
        """Compiles every size with copies of `example`, then takes what comes; until `stopped`."""
        for size in self._sizes:
            if stopped():
                return
            self._pipeline.submit(Rows(), padded(stacked([example]), size), size)
        self._pipeline.drain()
        self._thread.start()

    def submit(self, examples: Sequence[Any]) -> Future[np.ndarray]:
        """The embeddings (n, d) of at least one example, later.

        Examples whose future is cancelled before their turn cost nothing. It raises `NotFinite`,
        or whatever a batch met with on the device.

        Raises:
          RuntimeError: after `close`.
        """
        group, now = _Group(len(examples)), time.monotonic()
        with self._changed:
            if self._closed:
                raise RuntimeError("the service has stopped")
            self._waiting.extend(_Waiting(group, i, each, now) for i, each in enumerate(examples))
            self._metrics.waiting(self._tower, len(self._waiting))
            self._changed.notify()
        return group.result

    def close(self) -> None:
        """Embeds what waits, and ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._pipeline.close()

    def _run(self) -> None:
        while batch := self._taken():
            size = next(size for size in self._sizes if size >= len(batch))
            begun = time.monotonic()
            self._metrics.batch(self._tower, len(batch), size, [begun - w.since for w in batch])
            rows = Rows(
                filled=functools.partial(self._filled, batch, begun),
                failed=functools.partial(self._failed, batch),
            )
            try:
                examples = padded(stacked([waiting.example for waiting in batch]), size)
                self._pipeline.submit(rows, examples, len(batch))
            except Exception as error:
                # The pipeline raises what an earlier batch met with, too, when this one is on
                # its way.
                if error is not self._told:
                    self._failed(batch, error)
        # To close the pipeline drops what is still on the device.
        while True:
            try:
                return self._pipeline.drain()
            except Exception:  # its requests have been told
                continue

    def _taken(self) -> list[_Waiting]:
        """What waits, at most a batch; empty when the batcher is closed and nothing waits."""
        batch: list[_Waiting] = []
        while not batch:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return []
                most = taken(len(self._waiting), self._sizes)
                while self._waiting and len(batch) < most:
                    waiting = self._waiting.popleft()
                    if waiting.group.result.done():  # cancelled, or in error
                        self._metrics.dropped(self._tower)
                    else:
                        batch.append(waiting)
                self._metrics.waiting(self._tower, len(self._waiting))
        return batch

    def _filled(self, batch: list[_Waiting], begun: float, towers: tuple[np.ndarray, ...]) -> None:
        (z,) = towers
        self._metrics.computed(self._tower, time.monotonic() - begun)
        for waiting, row in zip(batch, z, strict=True):
            waiting.group.fill(waiting.index, row)

    def _failed(self, batch: list[_Waiting], error: Exception) -> None:
        self._told = error
        for waiting in batch:
            waiting.group.fail(error)
