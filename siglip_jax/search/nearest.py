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
from siglip_jax.search.reranking import HalvedRows, nearest

# Rows to multiply with at once: on a CPU what its cache holds, elsewhere what hides the start.
_CHUNK, _CPU_CHUNK = 65536, 8192


class Hit(NamedTuple):
    """A row that was found: whose it is, where it is, and its inner product with the query."""

    row: Row
    place: int
    similarity: float


class Searcher:
    """Exact search in embeddings, on all devices of a mesh.

    Rows stay on the devices, split over them, after the first search if they fit into
    `memory`. If only half of them would, float32 rows stay as bfloat16, and the few that this
    leaves open are read again from their files: the answers are the same. Otherwise every
    search streams the rows from the files.

    Args:
      embeddings: from `open_embeddings`.
      mesh: the devices; default: the first.
      chunk: rows to multiply with at once; default: 8,192 on a CPU, 65,536 elsewhere.
      memory: bytes of rows that all devices together may keep; default: half of what is
        free on them, and 1 GiB where that is not known.
      several_threads: others run programs on the same devices meanwhile, as in a service.

    See `search` for an example; a `Searcher` is called with the queries and k.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        mesh: Mesh | None = None,
        chunk: int | None = None,
        memory: int | None = None,
        several_threads: bool = False,
    ) -> None:
        self.embeddings, self._several_threads = embeddings, several_threads
        self.mesh = make_mesh(jax.devices()[:1]) if mesh is None else mesh
        if chunk is None:
            chunk = _CPU_CHUNK if self.mesh.devices.flat[0].platform == "cpu" else _CHUNK
        # Few rows must not cost a full chunk; powers of two bound the compilations.
        self._chunk = min(chunk, 1 << max(len(embeddings) - 1, 0).bit_length())
        self._keeps = _store(embeddings, _free(self.mesh) if memory is None else memory)
        self._kept: list[Chunk] | HalvedRows | None = None
        self._top: dict[int, TopK] = {}

    @property
    def resident(self) -> str | None:
        """The type of the rows on the devices, such as "bfloat16"; None if there are none."""
        return None if self._kept is None else self._keeps

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
        values, places = self._nearest(queries, k)
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

    def _nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self._kept, HalvedRows):
            found = nearest(self.embeddings, self._kept, queries, k, self._ranked)
            if found is not None:
                return found
        return self._ranked(k)(queries, self._rows(self._ranked(k)))

    def _ranked(self, k: int) -> TopK:
        if k not in self._top:
            self._top[k] = TopK(
                k, chunk=self._chunk, mesh=self.mesh, several_threads=self._several_threads
            )
        return self._top[k]

    def _rows(self, top: TopK) -> Iterator[Chunk]:
        if isinstance(self._kept, list):
            yield from self._kept
            return
        keeps = self._keeps if self._kept is None else None
        whole: list[Chunk] = []
        halved = HalvedRows()
        for rows in self.embeddings.chunks(self._chunk):
            chunk = top.put(rows)
            if keeps == "bfloat16":
                halved.add(chunk)
            elif keeps is not None:
                whole.append(chunk)
            yield chunk
        # All or nothing: some kept chunks would not spare the reading of the files.
        if keeps is not None:
            self._kept = halved if keeps == "bfloat16" else whole


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


def _store(embeddings: Embeddings, memory: int) -> str | None:
    """As what all rows fit into so many bytes."""
    numbers = len(embeddings) * embeddings.width
    if embeddings.dtype.itemsize * numbers <= memory:
        return str(embeddings.dtype)
    return "bfloat16" if embeddings.dtype == np.float32 and 2 * numbers <= memory else None


def _free(mesh: Mesh) -> int:
    devices = mesh.local_devices
    free = device_memory(devices).free
    return 1 << 30 if free is None else len(devices) * free // 2
