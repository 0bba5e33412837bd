"""Patches of images, read back from what a job has written, one image at a time."""

import bisect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from siglip_jax.jobs.bucket import Place, folder_at, opened
from siglip_jax.jobs.finished import finished_entries
from siglip_jax.jobs.ledger import Entry
from siglip_jax.jobs.manifest import read_manifest
from siglip_jax.jobs.patches import GRID, PatchForm


class _Shard(NamedTuple):
    path: Place  # of the patches
    first: int  # of its images, among all
    rows: np.ndarray  # (n,) where each image is in the file
    starts: np.ndarray  # (n + 1,) the first patch of each image, if all follow each other
    grids: np.ndarray  # (n, 2)


class _Held(NamedTuple):
    path: Place
    rows: range  # of the file
    before: int  # patches of the file that precede these
    patches: np.ndarray  # (n, width), of one image after the other


class Features(Sequence[np.ndarray]):
    """The patches of each image (patches, width), by its index; a dataset, as PyTorch has them.

    Files in `.npy` are mapped, and only what is used is read; of Parquet a row group is read
    and kept for the images that follow. Arrays are in the type that is stored, and read-only.

    Attributes:
      form: what the numbers are: `layer`, `store`, `width`, `patch`, and the `grid` where all
        images have the same.
      keys: of the images, in order; those that could not be read are left out.

    See `open_features` for an example.
    """

    def __init__(self, folder: Place, form: PatchForm, entries: Sequence[Entry]) -> None:
        self.form = form
        self.keys: list[str] = []
        self._shards: list[_Shard] = []
        for entry in entries:
            self._add([folder / file["path"] for file in entry.files])
        self._firsts = [shard.first for shard in self._shards]
        self._held: _Held | None = None

    def _add(self, paths: Sequence[Place]) -> None:
        with opened(paths[-1]) as file, pq.ParquetFile(file) as parquet:
            there = parquet.schema_arrow.names
            wanted = [name for name in ("key", "image_path", "error", *GRID) if name in there]
            table = parquet.read(wanted).to_pydict()
        keys = table["key"] if "key" in table else table["image_path"]
        errors = table.get("error", [None] * len(keys))
        good = [row for row, error in enumerate(errors) if error is None]
        if self.form.grid is None:
            grids = np.array([[table[name][row] for name in GRID] for row in good], np.int64)
        else:
            grids = np.tile(self.form.grid, (len(good), 1))
        starts = np.concatenate([[0], np.cumsum(grids.reshape(-1, 2).prod(axis=1))])
        rows = np.array(good, np.int64)
        self._shards.append(_Shard(paths[0], len(self.keys), rows, starts, grids))
        self.keys += [keys[row] for row in good]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        shard, own = self._where(index)
        row, held = int(shard.rows[own]), self._held
        if held is None or held.path != shard.path or row not in held.rows:
            mapped = shard.path.suffix == ".npy"
            held = self._held = self._mapped(shard) if mapped else self._group(shard, row)
        start, stop = shard.starts[own : own + 2] - held.before
        return held.patches[start:stop]

    def grid(self, index: int) -> tuple[int, int]:
        """Rows and columns of patches of an image; its patches come row by row."""
        shard, own = self._where(index)
        rows, columns = shard.grids[own].tolist()
        return rows, columns

    def _where(self, index: int) -> tuple[_Shard, int]:
        """The shard that an image is in, and its index there."""
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"there is no image {index}; there are {len(self):,}")
        # Of shards without an image, the last begins where the next does.
        shard = self._shards[bisect.bisect_right(self._firsts, place) - 1]
        return shard, place - shard.first

    def __getstate__(self) -> dict[str, Any]:
        # Processes that load data read for themselves.
        return self.__dict__ | {"_held": None}

    def _mapped(self, shard: _Shard) -> _Held:
        assert isinstance(shard.path, Path)
        stored = np.load(shard.path, mmap_mode="r").reshape(-1, self.form.width)
        return _Held(shard.path, range(len(shard.rows)), 0, self.form.numbers(stored))

    def _group(self, shard: _Shard, row: int) -> _Held:
        """The row group of a Parquet file that a row is in."""
        with opened(shard.path) as file, pq.ParquetFile(file) as parquet:
            rows, number = range(0), -1
            while row not in rows:
                number += 1
                size = parquet.metadata.row_group(number).num_rows
                rows = range(rows.stop, rows.stop + size)
            table = parquet.read_row_group(number, ["features"], use_threads=False)
        # Twice, out of lists of lists; what is null is in neither.
        parts = [chunk.flatten().flatten() for chunk in table.column(0).chunks]
        # By DLPack: pyarrow's own conversions import pandas, which takes half a second.
        flat = np.concatenate([np.from_dlpack(part) for part in parts])
        flat.flags.writeable = False
        before = int(shard.starts[np.searchsorted(shard.rows, rows.start)])
        return _Held(shard.path, rows, before, self.form.numbers(flat.reshape(-1, self.form.width)))


def open_features(folder: str | os.PathLike[str], *, unfinished: bool = False) -> Features:
    """Opens what `embed` with `layer` (`siglip-jax embed --features`) wrote, in either format.

    Args:
      folder: of the job, or its URL in a bucket (in Parquet).
      unfinished: take the shards that are done, of a job that is not.

    Raises:
      ValueError: one line: it holds no patches, is unfinished, or files of it are missing.

    >>> import tempfile
    >>> from siglip_jax import jobs, load
    >>> from siglip_jax.fetch import BUNDLED
    >>> folder = tempfile.mkdtemp()
    >>> images, model = BUNDLED["siglip_emoji"] / "pictures", load("siglip_emoji")
    >>> _ = jobs.embed(str(images), folder, model=model, layer=-2, store="bfloat16")
    >>> features = open_features(folder)
    >>> features[0].shape, str(features[0].dtype), features.grid(0)
    ((4, 192), 'bfloat16', (2, 2))
    """
    path = folder_at(folder)
    manifest = read_manifest(path)
    if "layer" not in manifest.job:
        what = "scores" if manifest.job["kind"] == "score" else "embeddings"
        raise ValueError(f"{path} holds {what}, not patches; run siglip-jax embed --features")
    if manifest.job["format"] == "npy" and not isinstance(path, Path):
        raise ValueError(f"{path} is in .npy, which is read from a disk only; copy it to one first")
    entries = finished_entries(path, manifest, unfinished=unfinished)
    return Features(path, PatchForm.of(manifest), entries)
