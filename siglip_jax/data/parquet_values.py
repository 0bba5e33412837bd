"""Values of Parquet files: unpacked few at a time, and no more of them than there can be.

A value that is stored once may be named by any number of rows, and takes its size for each.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from siglip_jax.data.kept import kept_rows
from siglip_jax.data.parquet_footer import Chunk, Footer
from siglip_jax.data.storage import Stored, is_remote
from siglip_jax.errors import DAMAGE

UNREADABLE = (OSError, ValueError, MemoryError, *DAMAGE)
# Rows that are decoded at a time, and bytes of a column that are read ahead: images may have
# megabytes each, and a row group thousands of them.
_ROWS, BUFFER = 32, 1 << 20
# Bytes that are unpacked at a time, and of a whole column before it is looked at closely; a
# column may have so many times the size of its file beyond that.
_HELD, _COLUMN, RATIO = 256 << 20, 512 << 20, 200


class _Dictionary(NamedTuple):
    """Values of a column that are stored once: of which chunk, and the most bytes one has."""

    chunk: Chunk
    largest: int

    @property
    def most(self) -> int:
        """Bytes that all values of the chunk may take."""
        return self.largest * max(self.chunk.values, 0)

    @property
    def nested(self) -> bool:
        """Whether it is a list's: one row may name any number of them."""
        return len(self.chunk.path) > 2


class Opened(NamedTuple):
    """An open file.

    Attributes:
      file: which.
      parquet: pyarrow's ParquetFile.
      footer: what it says of its pages.
      source: what pyarrow reads: a path, or a remote file.
    """

    file: Stored
    parquet: Any
    footer: Footer
    source: Any

    def dictionaries(self, names: Sequence[str], group: int) -> list[_Dictionary]:
        """Those of some columns in a row group.

        Raises:
          ValueError: as `Footer.largest`.
        """
        # Of a remote file, looking at all pages would be reading it twice.
        every = not is_remote(self.file.where)
        chunks = (chunk for name in names for chunk in self.footer.chunks(group, name))
        return [_Dictionary(chunk, self.footer.largest(chunk, all_pages=every)) for chunk in chunks]

    def with_dictionaries(self, of: Sequence[_Dictionary]) -> Any:
        """Another ParquetFile of it, in which some columns hold values that repeat once."""
        import pyarrow.parquet

        paths = sorted({".".join(each.chunk.path) for each in of})
        options = {"metadata": self.parquet.metadata, "buffer_size": BUFFER, "pre_buffer": False}
        return pyarrow.parquet.ParquetFile(self.source, read_dictionary=paths, **options)


def read_column(opened: Opened, name: str, groups: Sequence[int] | None = None) -> Any:
    """A column, of all row groups or some.

    Raises:
      DamagedError: if pages are damaged, or rows are missing.
    """
    groups = range(opened.parquet.num_row_groups) if groups is None else groups
    rows = sum(opened.parquet.metadata.row_group(group).num_rows for group in groups)
    try:
        dictionaries = [each for group in groups for each in opened.dictionaries([name], group)]
        if sum(each.most for each in dictionaries) <= _COLUMN:
            column = opened.parquet.read_row_groups(list(groups), [name]).column(0)
        else:
            column = _guarded(opened, name, groups, dictionaries)
    except UNREADABLE as error:
        raise DamagedError(opened.file, error) from error
    if len(column) != rows:
        missing = ValueError(f"column {name} has {len(column):,} of {rows:,} rows")
        raise DamagedError(opened.file, missing)
    return column


def _guarded(
    opened: Opened, name: str, groups: Sequence[int], dictionaries: Sequence[_Dictionary]
) -> Any:
    """A column of values that may be large and repeat, no more of it than there can be."""
    import pyarrow

    limit = _COLUMN + RATIO * (opened.file.size or 0)
    nested = [each for each in dictionaries if each.nested]
    rows = max(1, min(_HELD // max(each.largest for each in dictionaries), 1024))
    parquet = opened.with_dictionaries(nested)
    chunks, held = [], 0
    for batch in parquet.iter_batches(rows, list(groups), [name], use_threads=False):
        column = batch.column(0)
        if nested:
            _refuse_large(column)
        chunks.append(column)
        held += column.nbytes
        if held > limit:
            raise ValueError(f"column {name} unpacks to more than {limit:,} bytes")
    kind = chunks[0].type if chunks else opened.parquet.schema_arrow.field(name).type
    return pyarrow.chunked_array(chunks, kind)


class UnreadableError(Exception):
    """Pages of a file are damaged."""


def read_rows(
    opened: Opened,
    group: int,
    columns: list[str],
    skip: int,
    count: int,
    keep: Mapping[str, Any],
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """`count` rows of a row group after the first `skip`, few in memory at a time.

    Args:
      keep: columns that are carried along, with their types.
    """
    try:
        dictionaries = opened.dictionaries([*dict.fromkeys([*columns, *keep])], group)
        largest = max((each.largest for each in dictionaries), default=0)
        rows = max(1, min(_ROWS, _HELD // max(largest, 1)))
        large = [d for d in dictionaries if d.nested and d.most > _HELD]
        parquet = opened.with_dictionaries(large) if large else opened.parquet
        leaves = [*dict.fromkeys([*_leaves(opened.parquet.schema_arrow, columns), *keep])]
        batches = parquet.iter_batches(rows, [group], leaves, use_threads=False)
    except UNREADABLE as error:
        raise UnreadableError(_reason(error)) from error
    while count:
        try:
            batch = next(batches)
            passed = min(skip, len(batch))
            skip -= passed
            batch = batch[passed : passed + count]
            for each in large:
                _refuse_large(batch.column(each.chunk.path[0]))
            found = batch.select(columns).to_pylist()  # texts may be no UTF-8
            kept = kept_rows({name: batch.column(name) for name in keep}, keep) if keep else None
        except StopIteration:
            raise UnreadableError("it is missing") from None
        except UNREADABLE as error:
            raise UnreadableError(_reason(error)) from error
        count -= len(found)
        yield from zip(found, kept or [None] * len(found), strict=True)


def _leaves(schema: Any, columns: Sequence[str]) -> list[str]:
    """What is read of columns: of a struct that holds images, nothing else that may be in it."""
    from pyarrow import types

    leaves = []
    for name in columns:
        kind = schema.field(name).type
        parts = {field.name for field in kind} if types.is_struct(kind) else set()
        own = [f"{name}.{part}" for part in ("bytes", "path") if part in parts]
        leaves += own or [name]
    return leaves


def _refuse_large(lists: Any) -> None:
    """Raises a ValueError where lists of dictionaries stand for more than there can be."""
    import numpy as np
    import pyarrow.compute

    compute: Any = pyarrow.compute
    values = lists.flatten()
    lengths = compute.fill_null(compute.binary_length(values.dictionary), 0)
    indices = compute.fill_null(values.indices, 0)
    own: Any = np.from_dlpack(indices)
    size = int(np.from_dlpack(lengths)[own].sum()) if len(lengths) else 0
    if size > _HELD:
        raise ValueError(f"the texts of {len(lists)} rows have {size:,} bytes")


class DamagedError(ValueError):
    """A file, or a column in it, cannot be read; `reason` says why, without the file's name."""

    def __init__(self, file: Stored, error: Exception) -> None:
        self.reason = _reason(error)
        super().__init__(f"{file.name}: not a Parquet file that can be read: {self.reason}")


class DamagedRowError(ValueError):
    """A row of a file cannot be read, though others can."""

    def __init__(self, file: Stored, row: int, reason: str) -> None:
        super().__init__(f"{file.name}: row {row:,}: {reason}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).partition("\n")[0]
