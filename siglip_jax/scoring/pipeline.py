"""From items to rows of embeddings: the one road of scorers, jobs, evaluation and training.

A thread reads, a pool decodes ahead under a byte budget, the caller's thread gives padded
batches of one shape to the device, two in flight, and one thread waits for what comes back.
"""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

import collections
import functools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import jax
import numpy as np

from siglip_jax.programs.classes import ClassProgram
from siglip_jax.programs.compile_times import compiling_tower
from siglip_jax.programs.sharding import put
from siglip_jax.programs.towers import Program
from siglip_jax.scoring.batches import padded, stacked
from siglip_jax.scoring.batches import rows as first_rows
from siglip_jax.scoring.meter import SIDES, Meter
from siglip_jax.scoring.preparation import Preparer
from siglip_jax.scoring.reading import Feed
from siglip_jax.scoring.rows import Prepared, Rows

IN_FLIGHT = 2  # batches: one that is computed, one on its way
MEMORY = 2**30  # bytes of files and images being decoded


class Pipeline:
    """Embeds items in the order in which they are given.

    Rows of one shard never share a batch with another's, so that a shard's arithmetic does
    not depend on what was computed before it.

    Args:
      program, params: the towers and their weights. With a classifier's program it is
        logits of classes that rows hold, not embeddings.
      what: "images", "texts" or "pairs" of both.
      batch_size: examples of a batch, over all devices of the program's mesh.
      prepare: from an item to `Prepared`, in many threads; `Preparer` unless the items
        are ready.
      threads: that prepare; default: `ThreadPoolExecutor`'s.
      memory: bytes of files to hold that are read and not yet decoded, by all feeds.
      meter: told how long each side waits.
      of_images: what to run on images, as (params, images); the program's embedding unless given.
      returned: called with how many more examples are back, in the thread that waits for them.
      on_devices: leave what is computed where it is, as jax arrays.
      in_flight: batches that may be on the device when `submit` returns.
    """

    def __init__(
        self,
        program: Program | ClassProgram,
        params: Any,
        what: str,
        *,
        batch_size: int,
        prepare: Callable[[Any], Prepared] = lambda item: item,
        threads: int | None = None,
        memory: int = MEMORY // 2,
        meter: Meter | None = None,
        of_images: Callable[[Any, Any], jax.Array] | None = None,
        returned: Callable[[int], None] = lambda count: None,
        on_devices: bool = False,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self.batch_size, self.meter = batch_size, meter or Meter()
        self._program, self._params, self._what = program, params, what
        self._prepare, self._memory = prepare, memory
        self._of_images, self._returned = of_images, returned
        self._on_devices, self._in_flight = on_devices, in_flight
        self._threads = threads or min(32, (os.cpu_count() or 1) + 4)
        self._pool = ThreadPoolExecutor(self._threads, "decode")
        self._collector = ThreadPoolExecutor(1, "results")
        self._running: collections.deque[Future[None]] = collections.deque()
        self._feeds: list[Feed] = []
        self._compiled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def read(self, items: Iterable[Any]) -> Feed:
        """Begins to read and prepare `items`, up to two batches ahead; two feeds at a time."""
        ahead, together, several = 2 * self.batch_size, 1, self._each
        if isinstance(self._prepare, Preparer):
            # So that all threads have two calls' worth of them, or there is no saving.
            together = self._prepare.together(ahead // (2 * self._threads))
            several = self._prepare.several
        feed = Feed(
            items,
            several,
            self._pool,
            ahead=ahead,
            memory=self._memory // 2,
            together=together,
        )
        self._feeds.append(feed)
        return feed

    def _each(self, items: Sequence[Any]) -> list[Prepared]:
        return [self._prepare(item) for item in items]

    def embed(
        self, feed: Feed, rows: Rows, seen: Callable[[Prepared], None] = lambda item: None
    ) -> None:
        """Adds the items of `feed` to `rows` and has them embedded; `seen` is told of each.

        What is in flight at the end is waited for by `drain`.

        Raises:
          Unreadable: if the items cannot be read to their end.
          Exception: whatever `seen` or an earlier batch raised.
        """
        batch: list[Any] = []
        items = iter(feed)
        while True:
            with self.meter.waiting(SIDES[0]):
                item = next(items, None)
            if item is None:
                break
            rows.add(item)
            self.meter.items += 1
            seen(item)
            if item.example is not None:
                batch.append(item.example)
            if len(batch) == self.batch_size:
                self.submit(rows, stacked(batch), len(batch))
                batch = []
        if batch:
            self.submit(rows, padded(stacked(batch), self.batch_size), len(batch))
        self._feeds.remove(feed)

    def submit(self, rows: Rows, batch: Any, count: int) -> None:
        """Has a batch embedded, of which the first `count` examples are the next of `rows`.

        Raises:
          Exception: whatever an earlier batch met with.
        """
        asked = time.monotonic()
        if self._compiled:
            z = self._embed(batch)
        else:
            with compiling_tower(self._program, self._what, self.batch_size):
                z = self._embed(batch)
            self.meter.compiled(time.monotonic() - asked)
            self._compiled, asked = True, time.monotonic()
        if self._on_devices:
            # In this thread: where several processes compute, all do so in the same order.
            rows.fill(tuple(first_rows(tower, 0, count) for tower in z))
        self._running.append(self._collector.submit(self._collect, rows, z, count, asked))
        while len(self._running) > self._in_flight:
            with self.meter.waiting(SIDES[1]):
                self._running.popleft().result()

    def then(self, call: Callable[[], None]) -> None:
        """Calls `call` once all that was submitted is back, in the thread that waits for it."""
        self._running.append(self._collector.submit(call))

    def drain(self) -> None:
        """Waits until all is back."""
        with self.meter.waiting(SIDES[1]):
            while self._running:
                self._running.popleft().result()

    def close(self) -> None:
        """Stops reading; what is in flight is not waited for."""
        for feed in self._feeds:
            feed.close()
        if isinstance(self._prepare, Preparer):
            self._prepare.close()
        self._pool.shutdown(cancel_futures=True)
        if isinstance(self._prepare, Preparer):
            self._prepare.end_processes()
        self._collector.shutdown(cancel_futures=True)

    def _embed(self, batch: Any) -> tuple[jax.Array, ...]:
        program, params = self._program, self._params
        place = functools.partial(put, sharding=program.batch_sharding)
        batch = jax.tree.map(place, batch)
        if isinstance(program, ClassProgram):
            return (program.images(params, batch),)
        if self._what == "images":
            return ((self._of_images or program.images)(params, batch),)
        if self._what == "texts":
            return (program.texts(params, batch),)
        images, ids = batch
        return program.images(params, images), program.texts(params, ids)

    def _collect(self, rows: Rows, z: tuple[jax.Array, ...], count: int, asked: float) -> None:
        try:
            jax.block_until_ready(z)
            self.meter.computed(asked)
            if self._on_devices:
                return
            made = tuple(np.array(tower[:count]) for tower in map(np.asarray, z))
        except Exception as error:
            rows.failed(error)
            raise
        rows.fill(made)
        rows.back(count)
        self._returned(count)
