"""Embeddings as a LanceDB table: their rows with the job's other columns, to filter by."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from siglip_jax.messages import optional_package

if TYPE_CHECKING:
    import pyarrow as pa

    from siglip_jax.search.embeddings import Embeddings

TABLE = "embeddings"
VECTOR = "vector"
# `vector` is the embedding, rows in error are left out, and stamps are for updates of the job.
_NO_COLUMNS = ("embedding", "error", "stamp")


def write_lance(embeddings: "Embeddings", path: Path) -> int:
    """Makes the folder `path` a LanceDB database with one table, `embeddings`.

    Its columns are `key`, `vector` (float32), and those that the job has written beside them.
    Folders that lack a column of another have null there. Returns how many rows there are.

    Raises:
      ValueError: if lancedb is missing, or a column of two folders is of two types.
    """
    lancedb = optional_package("lancedb", why="it writes the table")
    import pyarrow as pa

    schema = _schema(embeddings)
    batches = (_batch(part, table, schema) for part, table in embeddings.tables())
    reader = pa.RecordBatchReader.from_batches(schema, batches)
    table = lancedb.connect(str(path)).create_table(TABLE, data=reader)
    return table.count_rows()


def refuse_other_folder(path: Path) -> None:
    """Raises a ValueError if `path` is anything but a folder to fill, or one of `write_lance`."""
    if not path.exists():
        return
    there = {each.name for each in path.iterdir()} if path.is_dir() else {path.name}
    if others := there - {f"{TABLE}.lance"}:
        raise ValueError(
            f"{path} holds something else than such a table, as {min(others)}; choose a new folder"
        )


def _schema(embeddings: "Embeddings") -> "pa.Schema":
    import pyarrow as pa

    fields = [
        pa.field("key", pa.string()),
        pa.field(VECTOR, pa.list_(pa.float32(), embeddings.width)),
    ]
    plain = []
    for schema in embeddings.schemas():
        kept = [field for field in schema if field.name not in ("key", *_NO_COLUMNS)]
        plain.append(pa.schema([field.with_nullable(True) for field in kept]))
        if VECTOR in plain[-1].names:
            raise ValueError(f"a column of the job is called {VECTOR!r}, as the embeddings are")
    try:
        return pa.schema([*fields, *pa.unify_schemas(plain)])
    except pa.ArrowInvalid as error:
        raise ValueError(f"columns of the folders do not go together: {error}") from error


def _batch(part: np.ndarray, table: "pa.Table", schema: "pa.Schema") -> "pa.RecordBatch":
    """The rows without error."""
    import pyarrow as pa

    good = ~np.isnan(part[:, 0])
    table = table.filter(pa.array(good))
    rows = np.ascontiguousarray(part[good], np.float32)
    columns = []
    for field in schema:
        if field.name == VECTOR:
            flat = pa.array(rows.reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, part.shape[1]))
        elif field.name in table.column_names:
            columns.append(table[field.name].cast(field.type).combine_chunks())
        else:
            columns.append(pa.nulls(len(rows), field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)
