"""What a ledger says of a finished shard."""

from typing import Any, NamedTuple

REASONS = 1000  # an entry's; the rows of Parquet files have all of them


class Entry(NamedTuple):
    """A finished shard.

    Attributes:
      shard: its number.
      name: what the source calls it.
      rows: items in it, those in error included.
      errors: how many could not be read.
      reasons: `{"key": ..., "error": ...}` of the first 1,000 of them.
      files: `{"path": ..., "bytes": ..., "sha256": ...}`, relative to the folder.
      stamp: of the file that is the shard (`siglip_jax.data.stamps`); None where the items
        have stamps of their own.
      passing: how many of the errors may pass; None in entries of earlier versions.
    """

    shard: int
    name: str
    rows: int
    errors: int
    reasons: list[dict[str, str]]
    files: list[dict[str, Any]]
    stamp: str | None = None
    passing: int | None = None
