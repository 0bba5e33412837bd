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
from siglip_jax.jobs.manifest import Manifest
from siglip_jax.messages import escaped
from siglip_jax.scoring.rows import Rows

_WORDS = ["key", "text", "error", "labels.list.element"]  # worth a dictionary; floats are not


class ParquetSink:
    """`data/00012.parquet`, one row an item, in order.

    Columns: `key`; `text` of texts and pairs; what was computed, null for an item in error;
    `width`, `height` of images, in pixels; `error`, null where all is well. The schema's
    metadata hold under `siglip_jax` what a file needs to be understood alone.
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
        table = pa.table(columns).replace_schema_metadata(self._metadata)
        path = self._data / f"{rows.shard:05d}.parquet"
        with durable(path) as temporary:
            words: Any = _WORDS  # pyarrow's annotation knows the bool only
            pq.write_table(table, temporary, use_dictionary=words)
        return [path]


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
        number = f"{rows.shard:04d}"
        numbers = self._folder / self._name / f"{self._name}_{number}.npy"
        metadata = self._folder / "metadata" / f"metadata_{number}.parquet"
        with durable(numbers) as temporary, temporary.open("wb") as file:
            np.save(file, computed["embedding"])
        with durable(metadata) as temporary:
            pq.write_table(pa.table(columns), temporary)
        return [numbers, metadata]


def make_sink(folder: Path, job: Job, manifest: Manifest) -> ParquetSink | NpySink:
    if job.format == "npy":
        return NpySink(folder, job)
    return ParquetSink(folder, job, manifest)


def _strings(values: Iterable[str | None]) -> pa.Array:
    return pa.array([value and escaped(value) for value in values], pa.string())


def _column(values: np.ndarray, good: np.ndarray, total: int) -> pa.Array:
    """`values` (n,) or (n, d) at the places `good` of `total`; null elsewhere."""
    missing = np.ones(total, bool)
    missing[good] = False
    whole: Any = np.zeros((total, *values.shape[1:]), values.dtype)
    whole[good] = values
    if values.ndim == 1:
        return pa.array(whole, mask=missing)
    if values.dtype == object:
        # Labels: as many a row as there are, which a list of variable length says as well.
        lists = [None if gone else list(row) for row, gone in zip(whole, missing, strict=True)]
        return pa.array(lists, pa.list_(pa.string()))
    flat = pa.array(whole.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(missing))
