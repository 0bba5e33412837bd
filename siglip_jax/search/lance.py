"""Embeddings as a LanceDB table: their rows with the job's other columns, to filter by."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from siglip_jax.data.failures import protocol_of, public_text
from siglip_jax.data.remote import filesystem
from siglip_jax.jobs.bucket import BucketPath, Place
from siglip_jax.messages import optional_package, reason

if TYPE_CHECKING:
    import pyarrow as pa

    from siglip_jax.search.embeddings import Embeddings

TABLE = "embeddings"
VECTOR = "vector"
# `vector` is the embedding, rows in error are left out, and stamps are for updates of the job.
_NO_COLUMNS = ("embedding", "error", "stamp")
# As LanceDB calls the protocols.
_STORES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}


def write_lance(embeddings: "Embeddings", where: Place) -> int:
    """Makes a folder or a prefix of a bucket a LanceDB database with one table, `embeddings`.

    Its columns are `key`, `vector` (float32), and those that the job has written beside them.
    Folders that lack a column of another have null there. Returns how many rows there are.

    In a bucket the table gives way as a whole, and what was there stays one of its versions.

    Raises:
      ValueError: if lancedb is missing, a column of two folders is of two types, or a store
        cannot be written to.
    """
    lancedb = optional_package("lancedb", why="it writes the table")
    import pyarrow as pa

    schema = _schema(embeddings)
    batches = (_batch(part, table, schema) for part, table in embeddings.tables())
    reader = pa.RecordBatchReader.from_batches(schema, batches)
    if isinstance(where, Path):
        table = lancedb.connect(str(where)).create_table(TABLE, data=reader)
        return table.count_rows()
    store, _, path = where.where.partition("://")
    try:
        database = lancedb.connect(
            f"{_STORES[store.lower()]}://{path}", storage_options=_storage_options(where)
        )
        return database.create_table(TABLE, data=reader, mode="overwrite").count_rows()
    # What it raises of a store has no kind of its own, and many lines.
    except (RuntimeError, OSError) as error:
        said = public_text(reason(error))
        raise ValueError(f"{where}: LanceDB could not write the table: {said}") from error


def refuse_other_folder(where: Place) -> None:
    """Raises a ValueError if `where` is anything but a place to fill, or one of `write_lance`."""
    if isinstance(where, BucketPath):
        if protocol_of(where.where) not in _STORES:
            raise ValueError(f"{where}: LanceDB writes to a folder here, or s3://... or gs://...")
        there = set(where.children())
    elif not where.exists():
        return
    else:
        there = {each.name for each in where.iterdir()} if where.is_dir() else {where.name}
    if others := there - {f"{TABLE}.lance"}:
        raise ValueError(
            f"{where} holds something else than such a table, as {min(others)}; choose a new folder"
        )


def _storage_options(where: BucketPath) -> dict[str, str]:
    """What fsspec was told of a store; logins of the environment LanceDB finds by itself."""
    fs: Any = filesystem(where.where, written=True)[0]
    token = getattr(fs, "token", None)
    if _STORES[protocol_of(where.where)] == "s3":
        client = fs.connect().meta
        elsewhere = ".amazonaws.com" not in client.endpoint_url
        told = {
            "aws_access_key_id": fs.key,
            "aws_secret_access_key": fs.secret,
            "aws_session_token": fs.token,
            "aws_skip_signature": "true" if fs.anon else None,
            "aws_endpoint": client.endpoint_url if elsewhere else None,
            "aws_region": client.region_name if elsewhere else None,
            "allow_http": "true" if client.endpoint_url.startswith("http://") else None,
        }
    else:  # which may be a word, too
        told = {"google_service_account": token if Path(str(token)).is_file() else None}
    return {name: value for name, value in told.items() if isinstance(value, str) and value}


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
