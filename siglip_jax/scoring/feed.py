"""The host side of scoring: decode in threads, cut into batches of one fixed shape."""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np


def decoded(
    images: Iterable[Any],
    preprocess: Callable[[Any], Any],
    *,
    ahead: int,
    workers: int | None = None,
    on_error: Callable[[int, ValueError], None] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yields (index, preprocessed picture) in order, at most `ahead` decoded in advance.

    Args:
      images: anything that `preprocess` takes; read lazily.
      on_error: called with the index and error of a picture that raised a
        ValueError, which is then left out; without it the error is raised.

    >>> list(decoded(["1", "x", "3"], int, ahead=2, on_error=lambda i, e: print(i, e)))
    1 invalid literal for int() with base 10: 'x'
    [(0, 1), (2, 3)]
    """
    source, pending = iter(images), collections.deque[Future[Any]]()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for index in itertools.count():
                for image in itertools.islice(source, ahead - len(pending)):
                    pending.append(pool.submit(preprocess, image))
                if not pending:
                    return
                try:
                    ready = pending.popleft().result()
                except ValueError as error:
                    if on_error is None:
                        raise
                    on_error(index, error)
                else:
                    yield index, ready
        finally:
            for future in pending:
                future.cancel()


def batches(examples: Any, size: int) -> Iterator[tuple[Any, int]]:
    """Yields (batch, count): `size` examples each, of which the first `count` are real.

    Args:
      examples: an array, a pytree of arrays with a common leading axis, or an
        iterator of single examples.

    >>> [(b.tolist(), n) for b, n in batches(np.arange(3), 2)]
    [([0, 1], 2), ([2, 2], 1)]
    """
    if isinstance(examples, Iterator):
        while chunk := list(itertools.islice(examples, size)):
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *chunk)
            yield padded(stacked, size), len(chunk)
        return
    total = len(jax.tree.leaves(examples)[0])
    for start in range(0, total, size):
        part = jax.tree.map(lambda leaf, s=start: leaf[s : s + size], examples)
        yield padded(part, size), min(size, total - start)


def padded(batch: Any, size: int) -> Any:
    """`batch` with copies of its first example appended up to `size`.

    A copy, not zeros: an image with no valid patch at all would be refused.
    """

    def pad(leaf: np.ndarray) -> np.ndarray:
        missing = size - len(leaf)
        if not missing:
            return leaf
        return np.concatenate([leaf, np.repeat(leaf[:1], missing, axis=0)])

    return jax.tree.map(pad, batch)
