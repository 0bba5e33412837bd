"""Which shards of a job are done. An entry is written after the files it speaks of."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from siglip_jax.jobs.durable import sha256, write_json
from siglip_jax.messages import reason

_REASONS = 1000  # an entry's; the rows of Parquet files have all of them


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


def read_entries(folder: Path) -> list[Entry]:
    """The finished shards of the job in `folder`, in order.

    Raises:
      ValueError: if one of its files is no entry; names it, and what to do.
    """
    paths = (folder / "ledger").glob("[0-9]*.json")
    return [read_entry(path) for path in sorted(paths, key=lambda path: int(path.stem))]


def read_entry(path: Path) -> Entry:
    """An entry.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is none; names the file, and what to do.
    """
    try:
        return Entry(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(
            f"{path}: not an entry of a ledger ({reason(error)}); remove it, and the same command "
            "computes its shard again"
        ) from error


class Ledger:
    """The entries in a job's folder, read again whenever somebody asks what is done."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._path = folder, folder / "ledger"
        self._path.mkdir(exist_ok=True)
        self._known: dict[int, Entry] = {}

    def write(
        self,
        shard: int,
        name: str,
        rows: int,
        errors: list[tuple[str, str]],
        files: list[Path],
        stamp: str | None = None,
        passing: int = 0,
    ) -> Entry:
        """Says that a shard is done; its files are on the disk already."""
        entry = Entry(
            shard,
            name,
            rows,
            len(errors),
            [{"key": key, "error": error} for key, error in errors[:_REASONS]],
            [
                {
                    "path": file.relative_to(self.folder).as_posix(),
                    "bytes": file.stat().st_size,
                    "sha256": sha256(file),
                }
                for file in files
            ],
            stamp,
            passing,
        )
        write_json(self._entry(shard), entry._asdict())
        self._known[shard] = entry
        return entry

    def done(self, shard: int) -> bool:
        """Whether a shard is, by this process or another."""
        return shard in self._known or self._read(shard) is not None

    @property
    def rows(self) -> int:
        """Items in the shards that are known to be done."""
        return sum(entry.rows for entry in list(self._known.values()))

    def entries(self) -> dict[int, Entry]:
        """All finished shards, in order."""
        for path in self._path.glob("[0-9]*.json"):
            if (shard := int(path.stem)) not in self._known:
                self._read(shard)
        return dict(sorted(self._known.items()))

    def forget(self, shard: int) -> None:
        """Makes a shard one that is to be done."""
        self._entry(shard).unlink(missing_ok=True)
        self._known.pop(shard, None)

    def _entry(self, shard: int) -> Path:
        return self._path / f"{shard:05d}.json"

    def _read(self, shard: int) -> Entry | None:
        try:
            entry = read_entry(self._entry(shard))
        except FileNotFoundError:
            return None
        self._known[shard] = entry
        return entry
