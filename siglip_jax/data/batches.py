"""An endless stream of training batches that resumes at the very example."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from typing import Any, Self

import numpy as np

from siglip_jax.data.augmentation import Augmentation
from siglip_jax.data.error_share import ErrorShare
from siglip_jax.data.examples import Batch, Preparation, Stream
from siglip_jax.data.item import Pairs
from siglip_jax.messages import optional_package
from siglip_jax.preprocessing import Patches, Profile, Tokenizer

# Before a share is judged by this many examples, or by all there are.
_ENOUGH = 1000


class Batches:
    """Shuffled batches without end, from threads or worker processes.

    Every epoch is a new permutation of the pairs; what is left of one when a batch is
    full begins the next batch, so that all batches are of one size. Each visit draws
    one of the pair's captions. What batch number k holds depends on the data, `seed`,
    `batch` and `augmentation` alone, not on `workers`, `threads` or how many processes
    share the batch, and a restored stream may change those.

    An image that cannot be read is replaced by another one drawn at random (by `seed`
    again), and listed in `Batch.unreadable` and, each once, in `bad`.

    Args:
      pairs: what `open_pairs` returns.
      tokenizer: makes the token ids.
      profile: prepares the images.
      batch: examples of a batch over all processes.
      seed: 0 to 2³² - 1.
      augmentation: random changes to the images.
      images: False leaves them unread, for training on cached embeddings; texts and
        indices are those of a run with them.
      workers: worker processes, which take turns at making batches; 0 for none.
      threads: threads, of each worker if there are any. A thread makes a whole batch,
        and as many as there are threads are made ahead.
      max_error_share: share of unreadable images above which a ValueError is raised.
        Of the first thousand examples, or the first epoch if that is less, so many may
        be unreadable as the share allows over all of them.
      skip: indices of images that are known not to be readable; others replace them.
      patch: side of a NaFlex model's patches.
      process_index, process_count: this process makes row `process_index * b` to
        `(process_index + 1) * b` of each batch, where b is `batch / process_count`.

    Attributes:
      bad: key to reason, of every unreadable image that this object met.
      unreadable: how often one was met, before a restored state too.

    Raises:
      ValueError: if grain is missing, a number is out of range, the batch does not
        divide by the processes, or the profile is NaFlex's and there is no `patch` or
        an augmentation. While iterating: if too many images cannot be read.
    """

    def __init__(
        self,
        pairs: Pairs,
        tokenizer: Tokenizer,
        profile: Profile,
        *,
        batch: int,
        seed: int,
        augmentation: Augmentation | None = None,
        images: bool = True,
        workers: int = 0,
        threads: int = 2,
        max_error_share: float = 0.01,
        skip: Collection[int] = (),
        patch: int | None = None,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        self._grain = optional_package("grain", why="reading training data needs it")
        _check("batch", batch, 1, sys.maxsize)
        _check("seed", seed, 0, 2**32 - 1)
        _check("workers", workers, 0, 1024)
        _check("threads", threads, 0, 1024)
        _check("process_count", process_count, 1, sys.maxsize)
        _check("process_index", process_index, 0, process_count - 1)
        if batch % process_count:
            raise ValueError(f"batch {batch} does not divide by {process_count} processes")
        if not len(pairs):
            raise ValueError("there are no pairs to make batches of")
        order = self._grain.MapDataset.range(len(pairs)).shuffle(seed=seed).repeat()
        self._stream = Stream(
            pairs,
            order,
            tokenizer,
            Preparation(profile=profile.image, patch=patch, augmentation=augmentation),
            batch=batch,
            seed=seed,
            images=images,
            skip=frozenset(skip),
            process_index=process_index,
            process_count=process_count,
        )
        self._workers, self._threads = workers, threads
        least = min(_ENOUGH, len(pairs))
        self._share = ErrorShare(max_error_share, errors=1, items=least, what="images")
        self._identity = pairs.identity()
        self._step = 0
        self._batches: Any = None
        self.bad: dict[str, str] = {}

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = self._start()
        try:
            batch = next(self._batches)
        except ValueError as error:
            # Grain adds lines about its own traceback.
            raise ValueError(str(error)) from error
        if self._workers:
            batch = _own(batch)
        self._step += 1
        if batch.unreadable:
            self._count(batch)
        return batch

    @property
    def unreadable(self) -> int:
        return self._share.count

    def state(self) -> dict[str, Any]:
        """Where the stream stands, in plain JSON types.

        All of it is the same in every process but the count of unreadable images.
        """
        return {
            "batches": self._step,
            "unreadable": self.unreadable,
            "batch": self._stream.batch,
            "seed": self._stream.seed,
            "pairs": self._identity,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to where `state` was taken; the next batch is the one that came next then.

        Raises:
          ValueError: if it is no such state, or of other data, another seed or batch.
        """
        mine = self.state()
        if not isinstance(state, dict) or state.keys() != mine.keys():
            raise ValueError(f"not a state of Batches: {state!r}")
        for name, what in (("pairs", "data"), ("seed", "seed"), ("batch", "batch")):
            if state[name] != mine[name]:
                raise ValueError(
                    f"cannot resume: the {what} differ: {name} was {state[name]!r} and is "
                    f"{mine[name]!r} now"
                )
        self.close()
        self._step, self._share.count = state["batches"], state["unreadable"]

    def close(self) -> None:
        """Ends threads and worker processes; iterating on starts them again."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self) -> Any:
        """An iterator from the present step on: a batch depends on its number alone."""
        grain = self._grain
        steps = grain.MapDataset.range(self._step, sys.maxsize).map(self._stream)
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads)
        batches = steps.to_iter_dataset(options)
        if self._workers:
            # Grain asks absl for its flags when it starts processes, and absl refuses to
            # tell before a command line was parsed.
            from absl.flags import FLAGS

            if not FLAGS.is_parsed():
                FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(num_workers=self._workers)
            batches = batches.mp_prefetch(options, worker_init_fn=_exit_with_parent)
        return iter(batches)

    def _count(self, batch: Batch) -> None:
        for key, reason in batch.unreadable:
            self._share.add(key, reason)
            self.bad.setdefault(key, reason)
        self._share.check(self._step * self._stream.rows + self.unreadable)


def _exit_with_parent(worker: int, workers: int) -> None:
    """Run in a worker: an interrupt is the trainer's to handle, and its end the worker's too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _own(batch: Batch) -> Batch:
    """A copy of a batch that lies in memory shared with a worker, which goes away with it."""
    image = batch.image
    if isinstance(image, Patches):
        image = Patches(*map(np.array, image))
    elif image is not None:
        image = np.array(image)
    return batch._replace(image=image, text=np.array(batch.text), index=np.array(batch.index))


def _check(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        least = f"an integer of at least {low}"
        span = least if high == sys.maxsize else f"an integer from {low} to {high}"
        raise ValueError(f"Batches: {name} must be {span}, got {value!r}")
