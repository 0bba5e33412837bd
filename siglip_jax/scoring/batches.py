"""Batches of one fixed shape."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


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
