"""Items read in a thread of their own and prepared in a pool, in order, in bounded memory."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
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
      prepare: from an item to `Prepared`; runs in `pool`.
      ahead: items to prepare in advance.
      memory: bytes of files to hold that are read and not yet decoded.
    """

    def __init__(
        self,
        items: Iterable[Any],
        prepare: Callable[[Any], Prepared],
        pool: Executor,
        *,
        ahead: int,
        memory: int,
    ) -> None:
        self._items, self._prepare, self._pool = items, prepare, pool
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
            yield ready.result()
            self._slots.give(1)

    def close(self) -> None:
        """Stops reading, and forgets what has not been asked for."""
        self._slots.close()
        self._files.close()

    def _read(self) -> None:
        try:
            for item in self._items:
                image = getattr(item, "image", None)
                amount = len(image) if isinstance(image, bytes) else 0
                self._slots.take(1)
                self._files.take(amount)
                future: Future[Prepared] = self._pool.submit(self._prepare, item)
                future.add_done_callback(lambda _, held=amount: self._files.give(held))
                self._ready.put(future)
            self._ready.put(None)
        except Closed:
            pass
        # Whatever reading raises is for the thread that asked.
        except BaseException as error:
            self._ready.put(error)
