"""Rows that are nearly the same, in groups: exact, block by block."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from siglip_jax.search.embeddings import Embeddings
from siglip_jax.search.nearest import Hit

_BLOCK = 2048  # rows compared with as many at once

Progress = Callable[[int, int], None]


def duplicates(
    embeddings: Embeddings,
    threshold: float,
    *,
    block: int = _BLOCK,
    progress: Progress | None = None,
) -> list[list[Hit]]:
    """Groups of rows that are as near to each other as `threshold`, the largest first.

    Two rows of which the inner product is at least `threshold` are in one group, and so is what
    either has in common with others: groups are the connected components, in which the first
    and the last may be less alike. All pairs of rows are compared, in float32; memory is that of
    two blocks, of their products and of a number for each row in a group, however many pairs
    there are. The files are read once for every block of rows.

    Args:
      embeddings: from `open_embeddings`; rows in error are in no group.
      threshold: an inner product, of unit-norm rows a cosine: between 0 and 1.
      block: rows that are compared with as many at once.
      progress: called with the comparisons done and their number, in pairs of blocks.

    Returns:
      Groups of at least two rows in their order, of equal sizes the one that begins first; the
      similarity of a hit is that with the first row of its group.

    Raises:
      ValueError: if `threshold` lies elsewhere.

    >>> from pathlib import Path
    >>> import siglip_jax
    >>> from siglip_jax import jobs
    >>> from siglip_jax.search import open_embeddings
    >>> images = Path(siglip_jax.__file__).parent / "emoji" / "pictures"
    >>> result = jobs.embed(str(images), "twins", model=siglip_jax.load("siglip_emoji"))
    >>> len(duplicates(open_embeddings("twins"), 0.999))
    0
    """
    if not 0 < threshold < 1:
        raise ValueError(
            f"threshold must lie between 0 and 1, such as 0.95, got {threshold!r}; rounding "
            "leaves even equal rows below 1, and 0.9999 finds them"
        )
    blocks = -(-len(embeddings) // block)
    groups, done = _Groups(), 0
    for number in range(blocks):
        first = number * block
        rows: np.ndarray | None = None
        for offset, part in enumerate(embeddings.chunks(block, first)):
            rows = part if rows is None else rows
            hits, count = _near(rows, part, np.float32(threshold), offset * block)
            if int(count):  # most blocks have no near rows, which one number says
                groups.join(np.asarray(hits), first, first + offset * block)
            done += 1
            if progress is not None:
                progress(done, blocks * (blocks + 1) // 2)
    return [_hits(embeddings, places) for places in groups.found()]


class _Groups:
    """Places that hang together; of those that are alone nothing is held."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}  # towards the least place of the group

    def join(self, hits: np.ndarray, first: int, other: int) -> None:
        """Joins places `first` + i and `other` + j where `hits` (n, m) is true."""
        from scipy import sparse

        n, m = hits.shape
        ours, theirs = np.nonzero(hits)
        edges = np.ones(len(ours), np.bool_), (ours, n + theirs)
        both = sparse.coo_array(edges, shape=(n + m, n + m))
        count, labels = sparse.csgraph.connected_components(both, directed=False)
        size = np.bincount(labels, minlength=count)
        least: dict[int, int] = {}
        for node in np.flatnonzero(size[labels] > 1).tolist():
            place = first + node if node < n else other + node - n
            self._unite(least.setdefault(int(labels[node]), place), place)

    def found(self) -> list[list[int]]:
        """Groups of at least two places in order, the largest first."""
        groups: dict[int, list[int]] = {}
        for place in sorted(self._above):
            groups.setdefault(self._least(place), []).append(place)
        return sorted(groups.values(), key=lambda group: (-len(group), group[0]))

    def _least(self, place: int) -> int:
        above = self._above
        while above.setdefault(place, place) != place:
            above[place] = place = above[above[place]]
        return place

    def _unite(self, one: int, other: int) -> None:
        low, high = sorted((self._least(one), self._least(other)))
        self._above[high] = low


def _hits(embeddings: Embeddings, places: list[int]) -> list[Hit]:
    """A group, with the similarities to its first row."""
    rows = embeddings.vectors(places).astype(np.float64)
    near = (rows * rows[0]).sum(axis=1)
    return [
        Hit(row, place, float(np.float32(value)))
        for row, place, value in zip(embeddings.rows(places), places, near, strict=True)
    ]


@jax.jit
def _near(
    rows: jax.Array, others: jax.Array, threshold: jax.Array, offset: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Whether each of `others`, the first of them `offset` after that of `rows`, is near."""
    ours, theirs = rows.astype(jnp.float32), others.astype(jnp.float32)
    near = jnp.matmul(ours, theirs.T, precision=jax.lax.Precision.HIGHEST)
    place = jnp.arange(len(rows))[:, None], offset + jnp.arange(len(others))[None]
    hits = (near >= threshold) & (place[0] < place[1])  # each pair once
    return hits, jnp.sum(hits)
