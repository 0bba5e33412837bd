"""The files of a shard: Parquet, or the `.npy` layout of clip-retrieval."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siglip_jax.jobs.bucket import Place, opened
from siglip_jax.jobs.durable import written
from siglip_jax.jobs.job import Job
from siglip_jax.jobs.ledger import Entry
from siglip_jax.jobs.manifest import Manifest
from siglip_jax.jobs.patches import PatchForm, patch_counts, row_group_size
from siglip_jax.messages import escaped
from siglip_jax.scoring.rows import Prepared, Rows

# Worth a dictionary; floats are not.
_WORDS = ["key", "text", "error", "labels.list.element", "accepted.list.element"]


class ParquetSink:
    """`data/00012.parquet`, one row an item, in order.

    Columns: `key`; `text` of texts and pairs; what was computed, null for an item in error;
    `width`, `height` of images, in pixels; the grid of their patches, where these are stored
    and each image has its own; what is kept of the source; `error`, null where all is well;
    `stamp`, by which an update tells contents apart (`siglip_jax.data.stamps`). The schema's
    metadata hold under `siglip_jax` what a file needs to be understood alone.
    """

    def __init__(self, folder: Place, job: Job, manifest: Manifest) -> None:
        self._data, self._job = folder / "data", job
        self._data.mkdir(exist_ok=True)
        self._form = None if job.layer is None else PatchForm.of(manifest)
        self._metadata = _metadata(manifest, self._form)

    def write(self, rows: Rows, computed: dict[str, np.ndarray]) -> list[Place]:
        """Writes a shard. `computed` has a row for every item without error."""
        items, good = rows.items, rows.good
        columns: dict[str, pa.Array] = {"key": _strings(i.key for i in items)}
        if self._job.what != "images":
            columns["text"] = _strings(i.text for i in items)
        for name, values in computed.items():
            columns[name] = (
                self._form.column(values, items)
                if self._form and name == "features"
                else _column(values, good, len(items))
            )
        if self._job.what != "texts":
            columns["width"] = pa.array([i.width for i in items], pa.int32())
            columns["height"] = pa.array([i.height for i in items], pa.int32())
        if self._form:
            columns |= self._form.grid_columns(items)
        columns |= _kept(self._job, items)
        columns["error"] = _strings(i.error for i in items)
        columns["stamp"] = _strings(i.stamp for i in items)
        table = pa.table(columns).replace_schema_metadata(self._metadata)
        path = self._data / f"{rows.shard:05d}.parquet"
        return [_write_table(path, table)]


class NpySink:
    """`img_emb/img_emb_0012.npy` (or `text_emb/`) and `metadata/metadata_0012.parquet`.

    Items in error are in neither, since their rows go together; the ledger has them. Patches
    are `features/features_0012.npy`, (images, patches, width), or where images differ in their
    number (all patches, width), of each image as many as its grid in the metadata has.
    """

    def __init__(self, folder: Place, job: Job, manifest: Manifest) -> None:
        self._form = None if job.layer is None else PatchForm.of(manifest)
        name = {"images": "img_emb", "texts": "text_emb"}[job.what]
        self._name = "features" if self._form else name
        self._metadata = _metadata(manifest, self._form) if self._form else None
        self._job, self._folder = job, folder
        for name in (self._name, "metadata"):
            (folder / name).mkdir(exist_ok=True)

    def write(self, rows: Rows, computed: dict[str, np.ndarray]) -> list[Place]:
        """Writes a shard's embeddings, and what they are of."""
        good = [rows.items[place] for place in rows.good]
        if self._job.what == "images":
            columns = {
                "image_path": _strings(i.key for i in good),
                "width": pa.array([i.width for i in good], pa.int32()),
                "height": pa.array([i.height for i in good], pa.int32()),
            }
        else:
            columns = {
                "key": _strings(i.key for i in good),
                "caption": _strings(i.text for i in good),
            }
        if self._form:
            columns |= self._form.grid_columns(good)
        columns |= _kept(self._job, good)
        columns["stamp"] = _strings(i.stamp for i in good)
        number = f"{rows.shard:04d}"
        numbers = self._folder / self._name / f"{self._name}_{number}.npy"
        metadata = self._folder / "metadata" / f"metadata_{number}.parquet"
        with written(numbers) as file:
            np.save(file, self._numbers(computed, good))
        table = pa.table(columns).replace_schema_metadata(self._metadata)
        return [numbers, _write_table(metadata, table)]

    def _numbers(self, computed: dict[str, np.ndarray], good: list[Prepared]) -> np.ndarray:
        if self._form is None:
            return computed["embedding"]
        flat = self._form.together(computed["features"], good)
        if self._form.grid is None:
            return flat
        return flat.reshape(len(good), -1, self._form.width)


def read_names(folder: Place, entry: Entry) -> pa.Table:
    """Columns `key`, `stamp` and `error` of the rows of a shard, in either layout.

    A shard that an earlier version wrote has no stamps. In the `.npy` layout no row is in error.
    """
    path = folder / entry.files[-1]["path"]
    with opened(path) as file, pq.ParquetFile(file) as parquet:
        there = parquet.schema_arrow.names
        wanted = [name for name in ("key", "image_path", "stamp", "error") if name in there]
        table = parquet.read(wanted).select(wanted)
    names = ["key" if name == "image_path" else name for name in wanted]
    table = table.rename_columns(names)
    for name in ("stamp", "error"):
        if name not in names:
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
    return table


def write_kept(folder: Path, entry: Entry, kept: np.ndarray) -> list[Path]:
    """Writes the files of a shard again, with the rows where `kept` (rows,) holds."""
    paths = [folder / file["path"] for file in entry.files]
    with pq.ParquetFile(paths[-1]) as parquet:
        table = parquet.read()
    if len(paths) > 1:
        counts = patch_counts(table)  # of each image, where its patches are rows
        rows = kept if counts is None else np.repeat(kept, counts)
        numbers = np.load(paths[0])[rows]
        with written(paths[0]) as file:
            np.save(file, numbers)
    _write_table(paths[-1], table.filter(pa.array(kept)))
    return paths


def make_sink(folder: Place, job: Job, manifest: Manifest) -> ParquetSink | NpySink:
    if job.format == "npy":
        return NpySink(folder, job, manifest)
    return ParquetSink(folder, job, manifest)


def _write_table(path: Place, table: pa.Table) -> Place:
    words: Any = [name for name in _WORDS if name.partition(".")[0] in table.column_names]
    with written(path) as file:
        # Its annotation knows the bool only.
        pq.write_table(table, file, row_group_size(table), use_dictionary=words)
    return path


def _metadata(manifest: Manifest, form: PatchForm | None) -> dict[str, str]:
    """Of a schema: what a file needs to be understood alone."""
    about = {
        "model": manifest.model,
        "weights": manifest.space["weights"],
        "t": manifest.t,
        "b": manifest.b,
        "labels": manifest.job.get("labels"),
    }
    if form:
        about["features"] = form.describe()
    return {"siglip_jax": json.dumps(about, ensure_ascii=False)}


def _kept(job: Job, items: Sequence[Prepared]) -> dict[str, pa.Array]:
    """What `items` carry along, in columns."""
    columns = {}
    for name, kind in job.keep.items():
        values = [(item.kept or {}).get(name) for item in items]
        values = [escaped(value) if isinstance(value, str) else value for value in values]
        if any(isinstance(value, pa.Array) for value in values):
            parts = [v if isinstance(v, pa.Array) else pa.array([v], kind) for v in values]
            columns[name] = pa.concat_arrays(parts)
        else:
            columns[name] = pa.array(values, kind)
    return columns


def _strings(values: Iterable[str | None]) -> pa.Array:
    return pa.array([value and escaped(value) for value in values], pa.string())


def _column(values: np.ndarray, good: np.ndarray, total: int) -> pa.Array:
    """`values` (n,) or (n, d) at the places `good` of `total`; null elsewhere."""
    missing = np.ones(total, bool)
    missing[good] = False
    whole: Any = np.zeros((total, *values.shape[1:]), values.dtype)
    whole[good] = values
    if values.ndim == 1 and values.dtype == object:
        # As many labels a row as are accepted.
        lists = [None if gone else row for row, gone in zip(whole, missing, strict=True)]
        return pa.array(lists, pa.list_(pa.string()))
    if values.ndim == 1:
        return pa.array(whole, mask=missing)
    if values.dtype == object:
        # Labels: as many a row as there are, which a list of variable length says as well.
        lists = [None if gone else list(row) for row, gone in zip(whole, missing, strict=True)]
        return pa.array(lists, pa.list_(pa.string()))
    column = pa.array(whole.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(column, values.shape[1], mask=pa.array(missing))
