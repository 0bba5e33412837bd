"""Parquet files: opened, what they claim and their columns checked, their rows in pieces."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from siglip_jax.data.columns import Columns
from siglip_jax.data.parquet_footer import Footer
from siglip_jax.data.parquet_values import RATIO, UNREADABLE, DamagedError, Opened
from siglip_jax.data.storage import Stored, is_remote, open_binary, whole_only

# What a file may claim to hold, beyond so many times its size.
_FREE, _FREE_ROWS = 1 << 30, 1_000_000


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
      columns: that are read.
      rows: of its row groups.
      metadata: as pyarrow has it.
      keys: the column of keys, if there is one.
      starts: as `Footer` has it.
      kept: types of columns that are carried along.
    """

    columns: Columns
    rows: list[int]
    metadata: Any
    keys: Any
    starts: list[int]
    kept: dict[str, Any]


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
def opened_parquet(
    file: Stored, starts: list[int] | None = None, **options: Any
) -> Iterator[Opened]:
    """Opens one; `starts` and what pyarrow is given.

    Raises:
      ValueError: if it is none, or damaged at its end.
    """
    import pyarrow.parquet

    with contextlib.ExitStack() as stack:
        remote = is_remote(file.where)
        raw: Any = stack.enter_context(open_binary(file.where))
        source = raw if remote else file.where
        try:
            parquet = stack.enter_context(pyarrow.parquet.ParquetFile(source, **options))
        except UNREADABLE as error:
            raise DamagedError(file, error) from error
        if remote and not raw.seekable():
            raise whole_only(file.where, "Parquet")

        def read(start: int, size: int) -> bytes:
            if not remote:
                return os.pread(raw.fileno(), size, start)
            raw.seek(start)
            return raw.read(size)

        footer = Footer(read, raw.seek(0, os.SEEK_END), [] if starts is None else starts)
        yield Opened(file, parquet, footer, source)


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


def check_claims(file: Stored, metadata: Any) -> None:
    """Raises a ValueError where a file says that it holds more than it can."""
    # Not of columns: where their statistics are damaged, pyarrow ends the process when asked.
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    unpacked = max((group.total_byte_size for group in groups), default=0)
    stored = file.size or max(unpacked, 0)
    few = min((group.num_rows for group in groups), default=0) >= 0
    if not few or rows > _FREE_ROWS + RATIO * stored or unpacked > _FREE + RATIO * stored:
        raise ValueError(
            f"{file.name}: it claims to hold {rows:,} rows, and {unpacked:,} bytes in one row "
            f"group, in {stored:,} bytes; fetch or write it again"
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
