"""The embeddings that a service searches, and small images of what it finds."""

import collections
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from siglip_jax.config import to_dict
from siglip_jax.data.columns import PARQUET_ENDINGS, TABLE_ENDINGS, TAR_ENDINGS
from siglip_jax.data.storage import is_remote, read_bytes
from siglip_jax.jobs.bucket import Place, folder_at
from siglip_jax.jobs.space import other_than
from siglip_jax.pretrained import Pretrained
from siglip_jax.search import Embeddings, Hit, Row, Searcher, location, open_embeddings
from siglip_jax.search.pictures import pictures_of
from siglip_jax.search.thumbnails import jpeg, thumbnail

MOST = 1024  # hits of a query
# How many rows are looked for, and queries at a time: each pair is compiled once.
_DEPTHS, _TOGETHER = (16, 128, MOST), (1, 8)
_SIDE = 320  # pixels of a thumbnail: sharp on a screen of two pixels a point
_KEPT = 1000  # thumbnails, some 15 kB each
# In these an item's key may be a value, which names no file.
_INSIDE = (*TAR_ENDINGS, *PARQUET_ENDINGS, *TABLE_ENDINGS, ".txt")


class Index:
    """What `siglip-jax embed --out FOLDER` wrote, searched by any thread.

    Args:
      folder: of a finished job.
      models: that are served; one of them must be the one that the job ran.

    Attributes:
      model: the name of that one.
      embeddings: its rows.

    Raises:
      ValueError: one line: it is no such folder, or of another model than those served.

    >>> Index("missing", {})
    Traceback (most recent call last):
    ValueError: missing holds no output of a job: there is no manifest.json
    """

    def __init__(self, folder: str | os.PathLike[str], models: Mapping[str, Pretrained]) -> None:
        # Images are looked for from the job's working folder, which must not move this one.
        path = folder_at(folder)
        if isinstance(path, Path) and path.is_dir():
            folder = path.resolve()
        self.embeddings: Embeddings = open_embeddings(folder)
        self.model = _model_of(path, self.embeddings, models)
        mesh = models[self.model].mesh
        self._searcher = Searcher(self.embeddings, mesh=mesh, several_threads=True)
        self._searching, self._reading = threading.Lock(), threading.Lock()
        self._thumbnails: collections.OrderedDict[int, bytes] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def what(self) -> str:
        """ "images" or "texts"."""
        return self.embeddings.what

    def start(self, ended: Callable[[], bool] = lambda: False) -> None:
        """Compiles all that `search` runs, and takes the rows to the devices if they fit.

        Args:
          ended: says that the rest is not needed any more.
        """
        for count in _TOGETHER:
            for depth in _DEPTHS:
                if ended():
                    return
                self._searcher(np.zeros((count, self.embeddings.width), np.float32), depth)

    def search(self, queries: np.ndarray, k: int) -> list[list[Hit]]:
        """For each of `queries` (n, width) its `k` nearest rows, at most `MOST`, best first."""
        depth = next(depth for depth in _DEPTHS if k <= depth)
        found: list[list[Hit]] = []
        for start in range(0, len(queries), _TOGETHER[-1]):
            some = queries[start : start + _TOGETHER[-1]]
            size = next(size for size in _TOGETHER if len(some) <= size)
            filled = np.zeros((size, queries.shape[1]), np.float32)
            filled[: len(some)] = some
            with self._searching:
                found += self._searcher(filled, depth)[: len(some)]
        return [hits[:k] for hits in found]

    def logit(self, similarity: float) -> float | None:
        """Of an image and a text; None of a job of one tower alone, which has no temperature."""
        manifest = self.embeddings.manifests[0]
        if manifest.t is None or manifest.b is None:
            return None
        return float(np.exp(manifest.t) * similarity + manifest.b)

    def thumbnail(self, place: int) -> bytes:
        """A JPEG file of the image of a row, small, with nothing of its metadata.

        Raises:
          LookupError: there is no such row, or its image is not where the job read it.
          ValueError: it cannot be read.
        """
        if not 0 <= place < len(self) or self.what != "images":
            raise LookupError(f"there is no image {place}")
        kept = self._thumbnails.get(place)
        if kept is not None:
            return kept
        with self._reading:
            (row,) = self.embeddings.rows([place])
            image = self._image(row)
        if image is None:
            raise LookupError("the image is no longer where it was when the index was made")
        made = jpeg(thumbnail(image, _SIDE))
        with self._reading:
            self._thumbnails[place] = made
            while len(self._thumbnails) > _KEPT:
                self._thumbnails.popitem(last=False)
        return made

    def _image(self, row: Row) -> bytes | str | None:
        """Its bytes or its path. By one thread at a time: `pictures_of` changes the folder."""
        origin = self.embeddings.manifests[row.folder].source.get("origin") or {}
        files = not any(spec.lower().endswith(_INSIDE) for spec in origin.get("specs", []))
        if files and origin.get("key") is None and origin.get("image") is None:
            # The quick way: whole sources need not be listed for the file of one key.
            where = location(row.key, origin)
            if where is not None and where.member is None and where.row is None:
                return read_bytes(where.file) if is_remote(where.file) else where.file
        found = pictures_of(self.embeddings, [row]).get(row)
        return read_bytes(found) if isinstance(found, str) and is_remote(found) else found


def _model_of(path: Place, embeddings: Embeddings, models: Mapping[str, Pretrained]) -> str:
    manifest = embeddings.manifests[0]
    wrong: dict[str, list[str]] = {}
    for name, model in models.items():
        # Digests of weights take seconds.
        if to_dict(model.config) != manifest.space["architecture"]:
            wrong[name] = ["architecture"]
        else:
            wrong[name] = other_than(model, manifest.space)
        if not wrong[name]:
            return name
    profile = manifest.space["profile"]["name"]
    differ = "; ".join(f"{name} differs in {' and '.join(what)}" for name, what in wrong.items())
    raise ValueError(
        f"{path} was made with {manifest.model}, profile {profile}, which is not served: {differ}; "
        "serve that model, or embed anew"
    )
