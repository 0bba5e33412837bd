"""The pictures of a dataset once through, for evaluation and for caching embeddings."""

import collections
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from siglip_jax.data.examples import Preparation
from siglip_jax.data.pair import Pairs
from siglip_jax.preprocessing import Profile


class ImageBatch(NamedTuple):
    """Prepared pictures.

    Attributes:
      image: (batch, res, res, 3) uint8, or for NaFlex `Patches` of arrays with a
        leading batch.
      count: how many are real; the others are copies of the first.
    """

    image: Any
    count: int


def images_in_order(
    pairs: Pairs,
    profile: Profile,
    batch: int,
    *,
    patch: int | None = None,
    on_error: Callable[[int, ValueError], None] | None = None,
) -> Iterator[ImageBatch]:
    """Every picture once, in order, in batches of one size; the last one is filled up.

    Args:
      patch: side of a NaFlex model's patches.
      on_error: called with the place and the error of a picture that cannot be read,
        in whose row stands a black one; without it the error is raised.

    Raises:
      ValueError: if a picture cannot be read and there is no `on_error`.
    """
    if type(batch) is not int or batch < 1:
        raise ValueError(f"batch must be an integer of at least 1, got {batch!r}")
    preparation = Preparation(profile=profile.image, patch=patch)
    return _batches(pairs, preparation, batch, on_error)


def _batches(
    pairs: Pairs,
    preparation: Preparation,
    batch: int,
    on_error: Callable[[int, ValueError], None] | None,
) -> Iterator[ImageBatch]:
    def prepared(index: int) -> Any:
        key, data, _ = pairs[index]
        try:
            return preparation.decoded(data)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error

    black = preparation.decoded(np.zeros((1, 1, 3), np.uint8))
    threads = os.cpu_count() or 1
    ahead = collections.deque[Future[Any]]()
    with ThreadPoolExecutor(threads) as pool:
        try:
            todo = iter(range(len(pairs)))
            for start in range(0, len(pairs), batch):
                count = min(batch, len(pairs) - start)
                ready: list[Any] = []
                for place in range(start, start + count):
                    while len(ahead) < 2 * threads and (index := next(todo, None)) is not None:
                        ahead.append(pool.submit(prepared, index))
                    try:
                        ready.append(ahead.popleft().result())
                    except ValueError as error:
                        if on_error is None:
                            raise
                        on_error(place, error)
                        ready.append(black)
                ready += ready[:1] * (batch - count)
                yield ImageBatch(preparation.stacked(ready), count)
        finally:
            for future in ahead:
                future.cancel()
