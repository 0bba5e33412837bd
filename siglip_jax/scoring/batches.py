"""Batches of one fixed shape, and how many processes decode for them."""

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Beside an H200: 1.7 times the rate of threads with 8 cores, 3.8 times with 16, and nobody has
# measured more.
_MANY_CORES, MOST_PROCESSES = 8, 16
_FEW_IMAGES = 2048


def batches(examples: Any, size: int) -> Iterator[tuple[Any, int]]:
    """Yields (batch, count): `size` examples each, of which the first `count` are real.

    Args:
      examples: an array, or a pytree of arrays with a common leading axis; what lies on
        devices stays there.

    >>> [(b.tolist(), n) for b, n in batches(np.arange(3), 2)]
    [([0, 1], 2), ([2, 2], 1)]
    """
    total = len(jax.tree.leaves(examples)[0])
    for start in range(0, total, size):
        stop = min(start + size, total)
        part = jax.tree.map(functools.partial(rows, start=start, stop=stop), examples)
        yield padded(part, size), min(size, total - start)


def usual_batch_size(devices: Sequence[Any]) -> int:
    """Examples of a batch over `devices`, where there is no end to them and no one said.

    >>> usual_batch_size(jax.local_devices(backend="cpu"))
    32
    """
    return 32 if devices[0].platform == "cpu" else 256 * len(devices)


def usual_decode_processes(devices: Sequence[Any], images: int | None) -> int:
    """Processes that decode `images` for a job on `devices`, where no one said; 0 for threads.

    Threads share Python's lock, for which a few cores hardly wait; where the model computes on
    the cores itself, more of them would only take from it; starting them takes a second.

    Args:
      images: None if nobody knows how many there are.

    >>> usual_decode_processes(jax.local_devices(backend="cpu"), None)
    0
    """
    cores = cores_of_this_process()
    few = images is not None and images < _FEW_IMAGES
    if devices[0].platform == "cpu" or cores < _MANY_CORES or few:
        return 0
    return min(cores, MOST_PROCESSES)


def cores_of_this_process() -> int:
    """Those on which it may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def stacked(examples: Sequence[Any]) -> Any:
    """Examples, arrays or pytrees of them, with a leading axis.

    >>> stacked([(1, 2), (3, 4)])
    (array([1, 3]), array([2, 4]))
    """
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)


def padded(batch: Any, size: int) -> Any:
    """`batch` with copies of its first example appended up to `size`.

    A copy, not zeros: an image with no valid patch at all would be refused.
    """

    def pad(leaf: Any) -> Any:
        missing = size - len(leaf)
        if not missing:
            return leaf
        if isinstance(leaf, jax.Array):
            first = jnp.broadcast_to(rows(leaf, 0, 1), (missing, *leaf.shape[1:]))
            return jnp.concatenate([leaf, first])
        return np.concatenate([leaf, np.repeat(leaf[:1], missing, axis=0)])

    return jax.tree.map(pad, batch)


def rows(array: Any, start: int, stop: int) -> Any:
    """`array[start:stop]`, on the devices where it is on devices."""
    if not isinstance(array, jax.Array):
        return array[start:stop]
    if (start, stop) == (0, len(array)):
        return array
    # Bounds that are part of the program: those of array[start:stop] come from the host.
    return jax.lax.slice_in_dim(array, start, stop)
