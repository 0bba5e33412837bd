"""The shards that a process does when it is told to, by others who wait for each of them."""

import queue
from collections.abc import Callable

from siglip_jax.jobs.entry import Entry
from siglip_jax.jobs.ledger import Ledger


class Assignments:
    """Shards that are given one by one, from any thread.

    Args:
      released: called with each that is done or cannot be, in the thread that is done with it.

    >>> turns = Assignments(print)
    >>> turns.give(3)
    >>> turns.next(wait=True), turns.next(wait=False)
    (3, None)
    >>> turns.release(3)
    3
    """

    def __init__(self, released: Callable[[int], None]) -> None:
        self._released = released
        self._given = queue.SimpleQueue[int | None]()

    def give(self, shard: int) -> None:
        self._given.put(shard)

    def end(self) -> None:
        """No more are given: whoever waits for one need not."""
        self._given.put(None)

    def next(self, *, wait: bool) -> int | None:
        try:
            shard = self._given.get(block=wait)
        except queue.Empty:
            return None
        if shard is None:
            self._given.put(None)  # it is asked again
        return shard

    def release(self, shard: int) -> None:
        self._released(shard)

    def close(self) -> None:
        """There is nothing to give back."""


class Outbox(Ledger):
    """A ledger that another process writes, with entries to be handed to it."""

    def take(self, shard: int) -> Entry | None:
        """The entry of a shard, which is then known here no more; None if it has none."""
        entry = self._known.get(shard)
        self._unknown(shard)
        return entry

    def done(self, shard: int) -> bool:
        return shard in self._known

    def add(self, entry: Entry) -> None:
        self._know(entry)

    def _begin(self) -> None:
        """What lies in the folder is for the other process to read."""
