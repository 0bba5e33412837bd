"""The nearest rows of a set too large to multiply with at once: exact, a chunk at a time.

Each chunk lies split over all devices; each device ranks its part, and only the few best
of every part meet. Nothing larger than (256 queries, chunk) is ever made.
"""

import collections
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from siglip_jax.programs.several_threads import for_several_threads
from siglip_jax.programs.sharding import DATA, MODEL, make_mesh, put

_IN_FLIGHT = 2  # chunks: one that is multiplied with, one on its way
_QUERIES = 256  # to multiply with at once: on a CPU, products that its cache holds
_GROUP = 64  # neighbours of which the largest is found before any are ranked


class Chunk(NamedTuple):
    """Rows on the devices: (devices, chunk/devices, d), of which the first `count` are real."""

    rows: jax.Array
    count: int


class TopK:
    """Exact maximum inner product of queries with rows that come in chunks.

    Args:
      k: how many rows to find.
      chunk: rows to multiply with at once, over all devices; rounded up to fill them.
      mesh: the devices; default: the first.
      several_threads: others run programs on the same devices meanwhile.

    Of rows equally near, the one that comes first is first. A row of NaN is never found.

    >>> rows = np.float32([[1, 0], [0, 1], [1, 0], [0.6, 0.8]])
    >>> nearest = TopK(2, chunk=3)(np.float32([[1, 0]]), cut(rows, 3))
    >>> nearest[0].tolist(), nearest[1].tolist()
    ([[1.0, 1.0]], [[0, 2]])
    """

    def __init__(
        self,
        k: int,
        *,
        chunk: int = 8192,
        mesh: Mesh | None = None,
        several_threads: bool = False,
    ) -> None:
        for name, value in (("k", k), ("chunk", chunk)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        mesh = make_mesh(jax.devices()[:1]) if mesh is None else mesh
        self.k, self.mesh, self.several_threads = k, mesh, several_threads
        self.chunk = -(-chunk // mesh.size) * mesh.size
        self._rows = NamedSharding(mesh, PartitionSpec((DATA, MODEL)))
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        whole = self._everywhere
        self._step = jax.jit(
            self._merge,
            in_shardings=(whole, self._rows, whole, whole, whole, whole),
            out_shardings=whole,
            **(for_several_threads(mesh) if several_threads else {}),
        )

    def put(self, rows: np.ndarray) -> Chunk:
        """Up to `chunk` rows (m, d), of any float type, on the devices.

        Raises:
          ValueError: if there are more.
        """
        if not len(rows) <= self.chunk or rows.ndim != 2:
            raise ValueError(f"expected up to {self.chunk} rows (m, d), got shape {rows.shape}")
        if len(rows) < self.chunk:
            filled = np.zeros((self.chunk, rows.shape[1]), rows.dtype)
            filled[: len(rows)] = rows
        else:
            filled = np.asarray(rows)
        parts = filled.reshape(self.mesh.size, -1, rows.shape[1])
        return Chunk(put(parts, self._rows), len(rows))

    def __call__(
        self, queries: np.ndarray, chunks: Iterable[np.ndarray | Chunk]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Inner products (n, k) float32, best first, and the places (n, k) int64 of their rows.

        Args:
          queries: (n, d); each n compiles once.
          chunks: arrays (m, d) of up to `chunk` rows, or what `put` made of them; all but
            the last with the same number of rows or not, their places count on.

        With fewer than k rows there are as many columns as rows; where a row of NaN takes
        a place, the value is -inf and the place -1.
        """
        queries = np.asarray(queries, np.float32)
        n, total = len(queries), 0
        where = put(queries, self._everywhere)
        best = (
            put(np.full((n, self.k), -np.inf, np.float32), self._everywhere),
            put(np.full((n, self.k), -1, np.int32), self._everywhere),
        )
        running: collections.deque[Any] = collections.deque()
        for chunk in chunks:
            part = chunk if isinstance(chunk, Chunk) else self.put(chunk)
            best = self._step(where, part.rows, np.int32(total), np.int32(part.count), *best)
            total += part.count
            if total >= 2**31:
                raise ValueError("more than 2,147,483,647 rows; search them in several parts")
            running.append(best[0])
            if len(running) > _IN_FLIGHT:
                running.popleft().block_until_ready()
        width = min(self.k, total)
        values, places = (np.asarray(leaf)[:, :width] for leaf in best)
        return values, places.astype(np.int64)

    def _merge(
        self,
        queries: jax.Array,
        rows: jax.Array,
        offset: jax.Array,
        count: jax.Array,
        values: jax.Array,
        places: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        n, (parts, size, d) = len(queries), rows.shape
        place = jnp.arange(parts * size, dtype=jnp.int32).reshape(1, parts, size)
        few = min(self.k, size)

        def ranked(some: jax.Array) -> tuple[jax.Array, jax.Array]:
            # Of matrices: XLA on a CPU has no quick kernel for three dimensions.
            near = jnp.matmul(
                some,
                rows.reshape(-1, d).astype(jnp.float32).T,
                precision=jax.lax.Precision.HIGHEST,
            ).reshape(-1, parts, size)
            return _top(jnp.where((place < count) & ~jnp.isnan(near), near, -jnp.inf), few)

        blocks = -(-n // _QUERIES)
        if blocks > 1:
            of_block = -(-n // blocks)
            padded = jnp.pad(queries, ((0, blocks * of_block - n), (0, 0)))
            found = jax.lax.map(ranked, padded.reshape(blocks, of_block, d))
            best, inside = (leaf.reshape(-1, parts, few)[:n] for leaf in found)
        else:
            best, inside = ranked(queries)
        # Places of parts follow each other.
        found = offset + inside + size * jnp.arange(parts, dtype=jnp.int32).reshape(1, parts, 1)
        found = jnp.where(jnp.isneginf(best), -1, found)
        # What was found in earlier chunks has lower places, so that it comes first.
        best = jnp.concatenate([values, best.reshape(n, parts * few)], axis=1)
        found = jnp.concatenate([places, found.reshape(n, parts * few)], axis=1)
        best, order = jax.lax.top_k(best, self.k)
        return best, jnp.take_along_axis(found, order, axis=1)


def _top(near: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`jax.lax.top_k` of the last axis: of equal values the lower place is first.

    The k best are in the k groups whose largest are the largest: each of these, unless it has
    one of the k best itself, would have one that comes before them. Finding a maximum is a
    tenth of the work of ranking.
    """
    *others, size = near.shape
    if size % _GROUP or size // _GROUP <= k:
        return jax.lax.top_k(near, k)
    groups = near.reshape(*others, -1, _GROUP)
    _, which = jax.lax.top_k(groups.max(axis=-1), k)
    which = jnp.sort(which, axis=-1)  # so that lower places are first again
    few = jnp.take_along_axis(groups, which[..., None], axis=-2)
    best, inside = jax.lax.top_k(few.reshape(*others, -1), k)
    group = jnp.take_along_axis(which, inside // _GROUP, axis=-1)
    return best, group * _GROUP + inside % _GROUP


def cut(rows: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    """Slices of `rows`, which may be mapped from a file."""
    for start in range(0, len(rows), chunk):
        yield rows[start : start + chunk]
