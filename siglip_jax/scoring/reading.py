"""Items read in a thread of their own and prepared in a pool, in order, in bounded memory."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from siglip_jax.scoring.budget import Budget, Closed
from siglip_jax.scoring.rows import Prepared


class Unreadable(Exception):
    """The items cannot be read to their end."""


class Feed:
    """The prepared items of an iterable, in order. Begins to read when it is made.

    Args:
      items: read in a thread of its own; the `image` of one may be the bytes of a file.
      prepare: from items to `Prepared`, one each; runs in `pool`.
      ahead: items to prepare in advance.
      memory: bytes of files to hold that are read and not yet decoded.
      together: items to prepare in one call, at most; no more than `ahead`.
    """

    def __init__(
        self,
        items: Iterable[Any],
        prepare: Callable[[Sequence[Any]], Sequence[Prepared]],
        pool: Executor,
        *,
        ahead: int,
        memory: int,
        together: int = 1,
    ) -> None:
        self._items, self._prepare, self._pool, self._together = items, prepare, pool, together
        self._slots, self._files = Budget(ahead), Budget(memory)
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, name="read", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Prepared]:
        """Raises Unreadable if reading ends with a ValueError or OSError, or whatever it raised."""
        while (ready := self._ready.get()) is not None:
            if isinstance(ready, ValueError | OSError):
                raise Unreadable(" ".join(str(ready).split())) from ready
            if isinstance(ready, BaseException):
                raise ready
            for prepared in ready.result():
                yield prepared
                self._slots.give(1)

    def close(self) -> None:
        """Stops reading, and forgets what has not been asked for."""
        self._slots.close()
        self._files.close()

    def _read(self) -> None:
        try:
            self._begin_all()
            self._ready.put(None)
        except Closed:
            pass
        # Whatever reading raises is for the thread that asked.
        except BaseException as error:
            self._ready.put(error)

    def _begin_all(self) -> None:
        group, held = list[Any](), 0

        def begin() -> None:
            nonlocal group, held
            if group:
                future: Future[Sequence[Prepared]] = self._pool.submit(self._prepare, group)
                future.add_done_callback(lambda _, held=held: self._files.give(held))
                self._ready.put(future)
            group, held = [], 0

        items = iter(self._items)
        while True:
            try:
                item = next(items, None)
            except BaseException:
                begin()  # what was read before is good
                raise
            if item is None:
                return begin()
            image = getattr(item, "image", None)
            amount = len(image) if isinstance(image, bytes) else 0
            if amount and not self._files.fits(amount):
                begin()  # nobody would give back what the group holds
            self._slots.take(1)
            self._files.take(amount)
            group.append(item)
            held += amount
            if len(group) >= self._together:
                begin()
