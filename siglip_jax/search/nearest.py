"""The rows nearest to a query, exactly, however many rows there are."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from siglip_jax.jobs.top_k import Chunk, TopK
from siglip_jax.programs import make_mesh
from siglip_jax.programs.memory import device_memory
from siglip_jax.search.embeddings import Embeddings, Row

_CHUNK = 65536  # rows to multiply with at once


class Hit(NamedTuple):
    """A row that was found: whose it is, where it is, and its inner product with the query."""

    row: Row
    place: int
    similarity: float


class Searcher:
    """Exact search in embeddings, on all devices of a mesh.

    Rows stay on the devices, split over them, after the first search if they fit into
    `memory`; otherwise every search streams them from the files.

    Args:
      embeddings: from `open_embeddings`.
      mesh: the devices; default: the first.
      chunk: rows to multiply with at once.
      memory: bytes of rows that all devices together may keep; default: half of what is
        free on them, and 1 GiB where that is not known.

    See `search` for an example; a `Searcher` is called with the queries and k.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        mesh: Mesh | None = None,
        chunk: int = _CHUNK,
        memory: int | None = None,
    ) -> None:
        self.embeddings = embeddings
        self.mesh = make_mesh(jax.devices()[:1]) if mesh is None else mesh
        # Few rows must not cost a full chunk; powers of two bound the compilations.
        self._chunk = min(chunk, 1 << max(len(embeddings) - 1, 0).bit_length())
        self._room = _free(self.mesh) if memory is None else memory
        self._kept: list[Chunk] | None = None
        self._top: dict[int, TopK] = {}

    @property
    def resident(self) -> bool:
        """Whether the rows lie on the devices by now."""
        return self._kept is not None

    def __call__(self, queries: np.ndarray, k: int) -> list[list[Hit]]:
        """For each of `queries` (n, width) the `k` nearest rows, best first.

        Of rows equally near the first is first; rows in error are never found.

        Raises:
          ValueError: if the width is another, or k is no positive integer.
        """
        queries = np.asarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.embeddings.width:
            raise ValueError(
                f"expected queries of shape (n, {self.embeddings.width}), got {queries.shape}"
            )
        if type(k) is not int or k < 1:
            raise ValueError(f"k must be an integer of at least 1, got {k!r}")
        if not len(queries) or not len(self.embeddings):
            return [[] for _ in queries]
        k = min(k, len(self.embeddings))
        if k not in self._top:
            self._top[k] = TopK(k, chunk=self._chunk, mesh=self.mesh)
        values, places = self._top[k](queries, self._rows(self._top[k]))
        good = places >= 0
        rows = iter(self.embeddings.rows(places[good].tolist()))
        return [
            [
                Hit(next(rows), int(place), float(value))
                for value, place in zip(*line, strict=True)
                if place >= 0
            ]
            for line in zip(values, places, strict=True)
        ]

    def _rows(self, top: TopK) -> Iterator[Chunk]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Chunk] | None = []
        left = self._room
        for rows in self.embeddings.chunks(self._chunk):
            chunk = top.put(rows)
            left -= chunk.rows.nbytes
            # All or nothing: some kept chunks would not spare the reading of the files.
            kept = [*kept, chunk] if kept is not None and left >= 0 else None
            yield chunk
        self._kept = kept


def search(embeddings: Embeddings, queries: np.ndarray, k: int, **options: Any) -> list[list[Hit]]:
    """The `k` rows nearest to each query; `Searcher` is for more than one search.

    Args:
      embeddings: from `open_embeddings`.
      queries: (n, width) float32, rows of norm 1.
      k: how many, at least 1.
      options: as for `Searcher`.

    Raises:
      ValueError: if the width is another, or k is no positive integer.

    >>> from pathlib import Path
    >>> import siglip_jax
    >>> from siglip_jax import jobs
    >>> from siglip_jax.search import open_embeddings
    >>> model = siglip_jax.load("siglip_emoji")
    >>> images = Path(siglip_jax.__file__).parent / "emoji" / "pictures"
    >>> result = jobs.embed(str(images), "index", model=model)
    >>> queries = model.scorer(text_batch_size=8).embed_texts(["brown circle"])
    >>> ((hit,),) = search(open_embeddings("index"), queries, 1)
    >>> hit.row.key, round(hit.similarity, 2)
    ('1f7e4.webp', 0.44)
    """
    return Searcher(embeddings, **options)(queries, k)


def _free(mesh: Mesh) -> int:
    devices = mesh.local_devices
    free = device_memory(devices).free
    return 1 << 30 if free is None else len(devices) * free // 2
