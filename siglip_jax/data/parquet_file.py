"""Parquet files: opened, their columns checked, their rows read a few at a time."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from siglip_jax.data.columns import Columns
from siglip_jax.data.failures import SettingError
from siglip_jax.data.storage import Stored, is_remote, open_binary, whole_only

# Rows that are decoded at a time, and bytes of a column that are read ahead: images may
# have megabytes each, and a row group thousands of them.
_ROWS, BUFFER = 32, 1 << 20
# What pyarrow raises of damage, of sizes that there is no memory for, too.
DAMAGE = (OSError, ValueError, MemoryError, NotImplementedError, LookupError, TypeError)
# What a file may claim to hold, beyond so many times its size.
_RATIO, _FREE, _FREE_ROWS = 200, 1 << 30, 1_000_000


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
      columns: that are read.
      rows: of its row groups.
      metadata: as pyarrow has it.
      keys: the column of keys, if there is one.
    """

    columns: Columns
    rows: list[int]
    metadata: Any
    keys: Any


class Piece(NamedTuple):
    """Rows of a file from `start` on, in these row groups with so many rows of each.

    `skip` rows at the beginning of the first group are another piece's.
    """

    file: int
    start: int
    groups: tuple[tuple[int, int], ...]
    skip: int = 0

    @property
    def rows(self) -> int:
        return sum(count for _, count in self.groups)


@contextlib.contextmanager
def opened_parquet(file: Stored, **options: Any) -> Iterator[Any]:
    """pyarrow's ParquetFile.

    Raises:
      ValueError: if it is none, or damaged at its end.
    """
    import pyarrow.parquet

    with contextlib.ExitStack() as stack:
        remote = is_remote(file.where)
        source: Any = stack.enter_context(open_binary(file.where)) if remote else file.where
        try:
            opened = stack.enter_context(pyarrow.parquet.ParquetFile(source, **options))
        except DAMAGE as error:
            raise DamagedError(file, error) from error
        if remote and not source.seekable():
            raise whole_only(file.where, "Parquet")
        yield opened


def read_column(opened: Any, file: Stored, name: str, groups: Sequence[int] | None = None) -> Any:
    """A column, of all row groups or some."""
    groups = range(opened.num_row_groups) if groups is None else groups
    try:
        return opened.read_row_groups(list(groups), [name]).column(0)
    except DAMAGE as error:
        raise DamagedError(file, error) from error


class UnreadableError(Exception):
    """Pages of a file are damaged."""


def read_rows(
    opened: Any, group: int, columns: list[str], skip: int, count: int
) -> Iterator[dict[str, Any]]:
    """`count` rows of a row group after the first `skip`, few in memory at a time."""
    batches = opened.iter_batches(_ROWS, [group], columns, use_threads=False)
    while count:
        try:
            batch = next(batches)
            passed = min(skip, len(batch))
            skip -= passed
            rows = batch[passed : passed + count].to_pylist()  # texts may be no UTF-8
        except StopIteration:
            raise UnreadableError("it is missing") from None
        except DAMAGE as error:
            raise UnreadableError(_reason(error)) from error
        count -= len(rows)
        yield from rows


def cut(file: int, rows: Sequence[int], size: int) -> Iterator[Piece]:
    """Cuts row groups with `rows` rows into pieces of at most `size`.

    >>> [(p.groups, p.skip, p.start) for p in cut(0, [2, 2, 2, 5], 4)]
    [(((0, 2), (1, 2)), 0, 0), (((2, 2),), 0, 4), (((3, 4),), 0, 6), (((3, 1),), 4, 10)]
    """
    groups: list[tuple[int, int]] = []
    start = held = 0
    for group, count in enumerate(rows):
        if groups and held + count > size:
            yield Piece(file, start, tuple(groups))
            groups, start, held = [], start + held, 0
        if count > size:
            for skip in range(0, count, size):
                yield Piece(file, start + skip, ((group, min(size, count - skip)),), skip)
            start += count
        elif count:
            groups.append((group, count))
            held += count
    if groups:
        yield Piece(file, start, tuple(groups))


def refuse_repeated_keys(files: Sequence[Stored], headers: Sequence[Header]) -> None:
    """Raises a ValueError if a row has no key, or two rows of all files have the same."""
    import pyarrow
    import pyarrow.compute

    compute: Any = pyarrow.compute  # its functions are made when it is imported
    keys = [header.keys for header in headers if header.keys is not None]
    for file, header in zip(files, headers, strict=True):
        if header.keys is not None and header.keys.null_count:
            row = compute.index(compute.is_null(header.keys), True).as_py()
            raise ValueError(f"{file.name}: row {row:,} has no key in column {header.columns.key}")
    chunks = [chunk.cast("string") for column in keys for chunk in column.chunks]
    if not chunks:
        return
    every = pyarrow.chunked_array(chunks)
    if compute.count_distinct(every).as_py() != len(every):
        counts = compute.value_counts(every)
        first = counts.filter(compute.greater(counts.field("counts"), 1))[0].as_py()
        name = next(header.columns.key for header in headers if header.columns.key)
        raise SettingError(
            f"{files[0].name}: {first['values']!r} is {first['counts']} times in column {name}",
            "key_column",
            "name a column with {} in which every value is there once",
        )


def check_claims(file: Stored, metadata: Any) -> None:
    """Raises a ValueError where a file says that it holds more than it can."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    chunks = [group.column(c) for group in groups for c in range(group.num_columns)]
    unpacked = max((chunk.total_uncompressed_size for chunk in chunks), default=0)
    stored = file.size or max((chunk.total_compressed_size for chunk in chunks), default=0)
    few = min((group.num_rows for group in groups), default=0) >= 0
    if not few or rows > _FREE_ROWS + _RATIO * stored or unpacked > _FREE + _RATIO * stored:
        raise ValueError(
            f"{file.name}: it claims to hold {rows:,} rows, and {unpacked:,} bytes of one column, "
            f"in {stored:,} bytes; fetch or write it again"
        )


def check_types(name: str, schema: Any, columns: Columns) -> None:
    """Refuses columns that hold no images, or no texts, of a file called `name`."""
    # A schema comes from pyarrow.
    from pyarrow import types

    def plain(kind: Any) -> Any:
        return kind.value_type if types.is_dictionary(kind) else kind

    def is_text(kind: Any) -> bool:
        kind = plain(kind)
        return types.is_string(kind) or types.is_large_string(kind)

    if columns.image:
        kind = plain(schema.field(columns.image).type)
        parts = {f.name for f in kind} if types.is_struct(kind) else set()
        binary = types.is_binary(kind) or types.is_large_binary(kind)
        if not (binary or is_text(kind) or parts & {"bytes", "path"}):
            raise ValueError(
                f"{name}: column {columns.image} holds {kind}; expected the bytes of image "
                "files, a struct of bytes and path, or paths"
            )
    if columns.text:
        kind = plain(schema.field(columns.text).type)
        lists = types.is_list, types.is_large_list, types.is_fixed_size_list
        several = any(is_list(kind) for is_list in lists)
        if not is_text(kind.value_type if several else kind):
            raise ValueError(
                f"{name}: column {columns.text} holds {kind}; expected a string or a "
                "list of strings"
            )


class DamagedError(ValueError):
    """A file, or a column in it, cannot be read; `reason` says why, without the file's name."""

    def __init__(self, file: Stored, error: Exception) -> None:
        self.reason = _reason(error)
        super().__init__(f"{file.name}: not a Parquet file that can be read: {self.reason}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).partition("\n")[0]
