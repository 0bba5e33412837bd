"""Items of a shard, read in a thread of their own and prepared in a pool, in bounded memory."""

import io
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from PIL import Image

from siglip_jax.jobs.rows import Prepared
from siglip_jax.jobs.sources.item import Item, Source
from siglip_jax.messages import reason
from siglip_jax.preprocessing import Tokenizer, decode_image
from siglip_jax.scoring import Scorer

# The decoded picture, and what resizing makes of it, in floats.
_BYTES_PER_PIXEL = 16


class Closed(Exception):
    """Nobody waits for this any more."""


class Unreadable(Exception):
    """A shard cannot be opened, or not be read to its end."""


class Budget:
    """Bytes (or anything countable) that threads may hold at a time.

    One that alone is more than the whole waits until nothing else is held.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used, self.most = limit, 0, 0
        self._changed, self._closed = threading.Condition(), False

    def take(self, amount: int) -> None:
        """Waits for room.

        Raises:
          Closed: if `close` is called meanwhile.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or not self.used or self.used + amount <= self.limit
            )
            if self._closed:
                raise Closed
            self.used += amount
            self.most = max(self.most, self.used)

    def give(self, amount: int) -> None:
        with self._changed:
            self.used -= amount
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Preparer:
    """Turns an item into what the model takes. Runs in many threads.

    Args:
      what: "images", "texts" or "pairs".
      memory: for pictures being decoded, over all threads.
    """

    def __init__(self, scorer: Scorer, what: str, memory: int) -> None:
        self.what, self.decoding = what, Budget(memory)
        self._scorer = scorer
        self._tokenizer: Tokenizer | None = scorer.tokenizer

    def __call__(self, item: Item) -> Prepared:
        done = Prepared(item.key, item.text, error=item.error)
        if item.error is not None:
            return done
        try:
            image, ids = None, None
            if self.what != "images":
                ids = self._ids(item)
            if self.what != "texts":
                done, image = self._picture(item, done)
        except ValueError as error:
            return done._replace(error=" ".join(str(error).split()))
        example = (image, ids) if self.what == "pairs" else image if ids is None else ids
        return done._replace(example=example)

    def _ids(self, item: Item) -> Any:
        if item.text is None:
            raise ValueError("there is no text")
        return self._tokenizer.encode([item.text], warn=False)[0]

    def _picture(self, item: Item, done: Prepared) -> tuple[Prepared, Any]:
        if item.image is None:
            raise ValueError("there is no picture")
        data = item.image
        if isinstance(data, str):
            try:
                data = Path(data).read_bytes()
            except (OSError, ValueError) as error:
                raise ValueError(f"cannot be read: {reason(error)}") from error
        whole = _size(data)
        amount = _BYTES_PER_PIXEL * whole[0] * whole[1]
        self.decoding.take(amount)
        try:
            pixels = decode_image(data, self._scorer.profile.image)
            height, width = pixels.shape[:2]
            if height * width < whole[0] * whole[1]:  # a draft, perhaps rotated
                height, width = whole if (height < width) == (whole[0] < whole[1]) else whole[::-1]
            done = done._replace(width=width, height=height)
            return done, self._scorer.preprocess(pixels)
        except ValueError as error:
            raise ValueError(str(error).removeprefix("image bytes: ")) from error
        finally:
            self.decoding.give(amount)


def _size(data: bytes) -> tuple[int, int]:
    """(height, width) that the header promises, zeros if it is none: decoding it says why."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.height, image.width
    except Exception:
        return 0, 0


class Feed:
    """The prepared items of one shard, in order. Begins to read when it is made.

    Args:
      ahead: items to prepare in advance.
      memory: bytes of files to hold that are read and not yet decoded.
    """

    def __init__(
        self,
        source: Source,
        shard: int,
        prepare: Callable[[Item], Prepared],
        pool: Executor,
        *,
        ahead: int,
        memory: int,
    ) -> None:
        self.shard = shard
        self._source, self._prepare, self._pool = source, prepare, pool
        self._slots, self._files = Budget(ahead), Budget(memory)
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, name=f"shard {shard}", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Prepared]:
        """Raises Unreadable if the shard cannot be read, and whatever else reading it raised."""
        while (ready := self._ready.get()) is not None:
            if isinstance(ready, ValueError | OSError):
                raise Unreadable(" ".join(str(ready).split())) from ready
            if isinstance(ready, BaseException):
                raise ready
            yield ready.result()
            self._slots.give(1)

    def close(self) -> None:
        """Stops reading, and forgets what nobody has asked for."""
        self._slots.close()
        self._files.close()

    def _read(self) -> None:
        try:
            for item in self._source.read(self.shard):
                amount = len(item.image) if isinstance(item.image, bytes) else 0
                self._slots.take(1)
                self._files.take(amount)
                future: Future[Prepared] = self._pool.submit(self._prepare, item)
                future.add_done_callback(lambda _, held=amount: self._files.give(held))
                self._ready.put(future)
            self._ready.put(None)
        except Closed:
            pass
        # Whatever a source raises is for the thread that asked.
        except BaseException as error:
            self._ready.put(error)
