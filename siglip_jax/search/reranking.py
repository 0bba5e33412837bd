"""Rows kept in half the memory, and the exact order of those that rounding leaves open.

A row x rounded to bfloat16 is x̂. The inner products of a query q with both differ by at most
|q|·|x - x̂|, and those that float32 sums by at most d·2⁻²³·|q|·|x| from the true ones. So the k
nearest are among the rows whose rounded inner product is no more than twice that below the
k-th; these few are read again as they are stored.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from siglip_jax.jobs.top_k import Chunk, TopK
from siglip_jax.search.embeddings import Embeddings

_WIDER = (2, 8, 32)  # times k + 16 candidates, until the last is surely none
_MOST = 65536  # rows that are read again for one search, whatever the queries


class HalvedRows:
    """Chunks of rows on the devices as bfloat16.

    Attributes:
      chunks: as `TopK` takes them.
    """

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self._bounds: list[jax.Array] = []

    def add(self, chunk: Chunk) -> None:
        """Rounds a chunk of float32 rows and keeps it."""
        rows, bounds = _halved(chunk.rows)
        self.chunks.append(Chunk(rows, chunk.count))
        self._bounds.append(bounds)

    def error(self, queries: np.ndarray) -> np.ndarray:
        """By how much, at most, an inner product of each query (n, d) is off: (n,) float64."""
        rounding, norm = np.max(np.asarray(jax.device_get(self._bounds), np.float64), axis=0)
        norms = np.linalg.norm(queries.astype(np.float64), axis=1)
        return norms * (rounding + queries.shape[1] * 2.0**-23 * norm)


def nearest(
    embeddings: Embeddings,
    halved: HalvedRows,
    queries: np.ndarray,
    k: int,
    top: Callable[[int], TopK],
) -> tuple[np.ndarray, np.ndarray] | None:
    """What `TopK` finds in the rows as stored; None if too many are too near each other.

    Args:
      queries: (n, d) float32.
      k: at most as many as there are rows.
      top: the search of so many rows.
    """
    within = 2 * halved.error(queries)[:, None]
    for factor in _WIDER:
        wide = min(factor * (k + 16), len(embeddings))
        values, places = top(wide)(queries, halved.chunks)
        unsure = (values >= values[:, k - 1, None] - within) & (places >= 0)
        if wide == len(embeddings) or not unsure[:, -1].any():
            return _reranked(embeddings, queries, k, places, unsure)
    return None


def _reranked(
    embeddings: Embeddings, queries: np.ndarray, k: int, places: np.ndarray, unsure: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """The nearest among the `unsure` of `places` (n, m), by inner products of float64."""
    wanted = np.unique(places[unsure])
    if len(wanted) > _MOST:
        return None
    rows = embeddings.vectors(wanted.tolist()).astype(np.float64)
    values = np.full((len(queries), k), -np.inf, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    for number, query in enumerate(queries.astype(np.float64)):
        own = np.sort(places[number, unsure[number]])
        # Not a matmul, in which equal rows may differ by where they stand.
        exact = (rows[np.searchsorted(wanted, own)] * query).sum(axis=1).astype(np.float32)
        order = np.argsort(-exact, kind="stable")[:k]
        values[number, : len(order)], found[number, : len(order)] = exact[order], own[order]
    return values, found


@jax.jit
def _halved(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows as bfloat16, and the largest norms of what was rounded off and of a row."""
    half, rows = rows.astype(jnp.bfloat16), rows.astype(jnp.float32)
    norms = [jnp.linalg.norm(each, axis=-1) for each in (rows - half.astype(jnp.float32), rows)]
    return half, jnp.stack([jnp.max(jnp.where(jnp.isnan(norm), 0, norm)) for norm in norms])
