"""Which shards of a job are done. An entry is written after the files it speaks of."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from siglip_jax.jobs.bucket import BucketPath, Place
from siglip_jax.jobs.durable import measured, write_json
from siglip_jax.jobs.entry import REASONS, Entry
from siglip_jax.jobs.ledger_blocks import read_blocks
from siglip_jax.messages import reason

__all__ = ["Entry", "Ledger", "read_entries", "read_entry"]


def read_entries(folder: Place) -> list[Entry]:
    """The finished shards of the job in `folder`, in order.

    Raises:
      ValueError: if one of its files is no entry; names it, and what to do.
    """
    if isinstance(folder, BucketPath):
        found = {e.shard: e for block in read_blocks(folder).values() for e in block.entries}
        return [found[shard] for shard in sorted(found)]
    paths = (folder / "ledger").glob("[0-9]*.json")
    return [read_entry(path) for path in sorted(paths, key=lambda path: int(path.stem))]


def read_entry(path: str | Path) -> Entry:
    """An entry.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is none; names the file, and what to do.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - of a string, in half the time
            return Entry(**json.loads(file.read().decode("utf-8")))
    except FileNotFoundError:
        raise
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(
            f"{path}: not an entry of a ledger ({reason(error)}); remove it, and the same command "
            "computes its shard again"
        ) from error


class Ledger:
    """The entries in a job's folder, read again whenever somebody asks what is done.

    Args:
      own: shards that `rows` counts; default: all.
    """

    def __init__(self, folder: Place, own: range | None = None) -> None:
        self.folder, self.own = folder, own
        # Counted as they come: to ask for it must cost the same however many there are.
        self._known, self._rows = dict[int, Entry](), 0
        self._begin()

    def _begin(self) -> None:
        assert isinstance(self.folder, Path)
        self._path = self.folder / "ledger"
        self._path.mkdir(exist_ok=True)

    def write(
        self,
        shard: int,
        name: str,
        rows: int,
        errors: list[tuple[str, str]],
        files: Sequence[Place],
        stamp: str | None = None,
        passing: int = 0,
    ) -> Entry:
        """Says that a shard is done; its files are on the disk already."""
        reasons = [{"key": key, "error": error} for key, error in errors[:REASONS]]
        about = [self._about(file) for file in files]
        entry = Entry(shard, name, rows, len(errors), reasons, about, stamp, passing)
        self.add(entry)
        return entry

    def add(self, entry: Entry) -> None:
        """Writes an entry, whose files are there already."""
        write_json(self._entry(entry.shard), entry._asdict())
        self._know(entry)

    def done(self, shard: int) -> bool:
        """Whether a shard is, by this process or another."""
        return shard in self._known or self._read(shard) is not None

    @property
    def rows(self) -> int:
        """Items in the shards that are known to be done."""
        return self._rows

    def entries(self) -> dict[int, Entry]:
        """All finished shards, in order."""
        self.look()
        return dict(sorted(list(self._known.items())))

    def look(self) -> None:
        """Learns what others have done: lists the ledger, and reads what is new."""
        with os.scandir(self._path) as there:
            names = [entry.name for entry in there]
        for name in names:
            stem, ending = name[:-5], name[-5:]
            if ending == ".json" and stem.isdecimal() and int(stem) not in self._known:
                self._read(int(stem))

    def forget(self, shard: int) -> None:
        """Makes a shard one that is to be done."""
        self._entry(shard).unlink(missing_ok=True)
        self._unknown(shard)

    def flush(self) -> None:
        """Writes what `forget` may have left to be written."""

    def compact(self) -> None:
        """Makes the form that lasts of what is there, when nobody else writes to it."""

    def _entry(self, shard: int) -> Path:
        return self._path / f"{shard:05d}.json"

    def _read(self, shard: int) -> Entry | None:
        try:
            entry = read_entry(f"{self._path}/{shard:05d}.json")
        except FileNotFoundError:
            return None
        self._know(entry)
        return entry

    def _know(self, entry: Entry) -> None:
        self._unknown(entry.shard)
        self._known[entry.shard] = entry
        if self.own is None or entry.shard in self.own:
            self._rows += entry.rows

    def _unknown(self, shard: int) -> None:
        gone = self._known.pop(shard, None)
        if gone is not None and (self.own is None or shard in self.own):
            self._rows -= gone.rows

    def _about(self, file: Any) -> dict[str, Any]:
        size, digest = measured(file)
        path = file.relative_to(self.folder).as_posix()
        return {"path": path, "bytes": size, "sha256": digest}
