"""The device's side of a job: batches of one shape, one on the device while the next comes."""

import collections
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from siglip_jax.jobs.meter import SIDES, Meter
from siglip_jax.jobs.rows import Rows
from siglip_jax.programs.sharding import put
from siglip_jax.scoring import Scorer
from siglip_jax.scoring.feed import padded

_IN_FLIGHT = 2  # batches: one that is computed, one on its way


class Compute:
    """Embeds batches in the order in which they are given.

    What comes back is waited for in a thread of its own, which also runs what is to happen
    when a shard's last batch is back. A batch never spans shards, so that a shard's
    arithmetic does not depend on what was computed before it.
    """

    def __init__(self, scorer: Scorer, what: str, meter: Meter) -> None:
        self.scorer, self._what, self._meter = scorer, what, meter
        self.batch_size = scorer.text_batch_size if what == "texts" else scorer.batch_size
        self._collector = ThreadPoolExecutor(1, "results")
        self._running: collections.deque[Future[None]] = collections.deque()
        self._compiled = False

    def submit(self, rows: Rows, examples: list[Any]) -> None:
        """Embeds up to a batch of examples, the next of `rows`.

        Raises:
          Exception: whatever an earlier batch met with.
        """
        batch = padded(_stacked(examples), self.batch_size)
        asked = time.monotonic()
        z = self._embed(batch)
        if not self._compiled:
            self._meter.compiled(time.monotonic() - asked)
            self._compiled, asked = True, time.monotonic()
        self._running.append(self._collector.submit(self._collect, rows, z, len(examples), asked))
        while len(self._running) > _IN_FLIGHT:
            with self._meter.waiting(SIDES[1]):
                self._running.popleft().result()

    def then(self, call: Callable[[], None]) -> None:
        """Calls `call` once all that was submitted is back, in the thread that waits for it."""
        self._running.append(self._collector.submit(call))

    def drain(self) -> None:
        """Waits until all is back."""
        with self._meter.waiting(SIDES[1]):
            while self._running:
                self._running.popleft().result()

    def close(self) -> None:
        self._collector.shutdown(cancel_futures=True)

    def _embed(self, batch: Any) -> tuple[jax.Array, ...]:
        program, params = self.scorer.program, self.scorer.params
        batch = jax.tree.map(lambda leaf: put(leaf, program.batch_sharding), batch)
        if self._what == "images":
            return (program.images(params, batch),)
        if self._what == "texts":
            return (program.texts(params, batch),)
        images, ids = batch
        return program.images(params, images), program.texts(params, ids)

    def _collect(self, rows: Rows, z: tuple[jax.Array, ...], count: int, asked: float) -> None:
        jax.block_until_ready(z)
        self._meter.computed(asked)
        rows.fill(tuple(np.array(tower[:count]) for tower in map(np.asarray, z)))


def _stacked(examples: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)
