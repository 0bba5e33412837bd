"""The files of a shard: Parquet, or the `.npy` layout of clip-retrieval."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siglip_jax.jobs.durable import durable
from siglip_jax.jobs.job import Job
from siglip_jax.jobs.ledger import Entry
from siglip_jax.jobs.manifest import Manifest
from siglip_jax.messages import escaped
from siglip_jax.scoring.rows import Rows

# Worth a dictionary; floats are not.
_WORDS = ["key", "text", "error", "labels.list.element", "accepted.list.element"]


class ParquetSink:
    """`data/00012.parquet`, one row an item, in order.

    Columns: `key`; `text` of texts and pairs; what was computed, null for an item in error;
    `width`, `height` of images, in pixels; `error`, null where all is well; `stamp`, by which
    an update tells contents apart (`siglip_jax.data.stamps`). The schema's metadata hold under
    `siglip_jax` what a file needs to be understood alone.
    """

    def __init__(self, folder: Path, job: Job, manifest: Manifest) -> None:
        self._data, self._job = folder / "data", job
        self._data.mkdir(exist_ok=True)
        about = {
            "model": manifest.model,
            "weights": manifest.space["weights"],
            "t": manifest.t,
            "b": manifest.b,
            "labels": manifest.job.get("labels"),
        }
        self._metadata = {"siglip_jax": json.dumps(about, ensure_ascii=False)}

    def write(self, rows: Rows, computed: dict[str, np.ndarray]) -> list[Path]:
        """Writes a shard. `computed` has a row for every item without error."""
        items, good = rows.items, rows.good
        columns: dict[str, pa.Array] = {"key": _strings(i.key for i in items)}
        if self._job.what != "images":
            columns["text"] = _strings(i.text for i in items)
        for name, values in computed.items():
            columns[name] = _column(values, good, len(items))
        if self._job.what != "texts":
            columns["width"] = pa.array([i.width for i in items], pa.int32())
            columns["height"] = pa.array([i.height for i in items], pa.int32())
        columns["error"] = _strings(i.error for i in items)
        columns["stamp"] = _strings(i.stamp for i in items)
        table = pa.table(columns).replace_schema_metadata(self._metadata)
        path = self._data / f"{rows.shard:05d}.parquet"
        return [_write_table(path, table)]


class NpySink:
    """`img_emb/img_emb_0012.npy` (or `text_emb/`) and `metadata/metadata_0012.parquet`.

    Items in error are in neither, since their rows go together; the ledger has them.
    """

    def __init__(self, folder: Path, job: Job) -> None:
        self._name = {"images": "img_emb", "texts": "text_emb"}[job.what]
        self._job, self._folder = job, folder
        for name in (self._name, "metadata"):
            (folder / name).mkdir(exist_ok=True)

    def write(self, rows: Rows, computed: dict[str, np.ndarray]) -> list[Path]:
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
        columns["stamp"] = _strings(i.stamp for i in good)
        number = f"{rows.shard:04d}"
        numbers = self._folder / self._name / f"{self._name}_{number}.npy"
        metadata = self._folder / "metadata" / f"metadata_{number}.parquet"
        with durable(numbers) as temporary, temporary.open("wb") as file:
            np.save(file, computed["embedding" if self._job.layer is None else "features"])
        return [numbers, _write_table(metadata, pa.table(columns))]


def read_names(folder: Path, entry: Entry) -> pa.Table:
    """Columns `key`, `stamp` and `error` of the rows of a shard, in either layout.

    A shard that an earlier version wrote has no stamps. In the `.npy` layout no row is in error.
    """
    path = folder / entry.files[-1]["path"]
    with pq.ParquetFile(path) as opened:
        there = opened.schema_arrow.names
        wanted = [name for name in ("key", "image_path", "stamp", "error") if name in there]
        table = opened.read(wanted).select(wanted)
    names = ["key" if name == "image_path" else name for name in wanted]
    table = table.rename_columns(names)
    for name in ("stamp", "error"):
        if name not in names:
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
    return table


def write_kept(folder: Path, entry: Entry, kept: np.ndarray) -> list[Path]:
    """Writes the files of a shard again, with the rows where `kept` (rows,) holds."""
    paths = [folder / file["path"] for file in entry.files]
    if len(paths) > 1:
        numbers = np.load(paths[0])[kept]
        with durable(paths[0]) as temporary, temporary.open("wb") as file:
            np.save(file, numbers)
    with pq.ParquetFile(paths[-1]) as opened:
        table = opened.read().filter(pa.array(kept))
    _write_table(paths[-1], table)
    return paths


def make_sink(folder: Path, job: Job, manifest: Manifest) -> ParquetSink | NpySink:
    if job.format == "npy":
        return NpySink(folder, job)
    return ParquetSink(folder, job, manifest)


def _write_table(path: Path, table: pa.Table) -> Path:
    words: Any = [name for name in _WORDS if name.partition(".")[0] in table.column_names]
    with durable(path) as temporary:
        pq.write_table(table, temporary, use_dictionary=words)  # its annotation knows the bool only
    return path


def _strings(values: Iterable[str | None]) -> pa.Array:
    return pa.array([value and escaped(value) for value in values], pa.string())


def _column(values: np.ndarray, good: np.ndarray, total: int) -> pa.Array:
    """`values` (n,), (n, d) or (n, patches, d) at the places `good` of `total`; null elsewhere."""
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
    for size in values.shape[:1:-1]:  # patches: a list of lists
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return pa.FixedSizeListArray.from_arrays(column, values.shape[1], mask=pa.array(missing))
