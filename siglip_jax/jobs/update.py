"""What of an index is still in its source, and what there is to embed: `embed --update`.

Nothing is remembered but the index itself, so that an update that was killed is told by the
next one as any other state: rows are taken out first, shards of what is new are added then.
"""

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.data.failures import SettingError
from siglip_jax.data.item import Item, Shard, Source, Stamped
from siglip_jax.jobs.bucket import Place
from siglip_jax.jobs.durable import write_json
from siglip_jax.jobs.ledger import Entry, Ledger
from siglip_jax.jobs.manifest import NAME, Manifest
from siglip_jax.jobs.result import SUMMARY
from siglip_jax.jobs.sink import read_names, write_kept
from siglip_jax.messages import escaped

_FOLDERS = ("data", "img_emb", "text_emb", "features", "metadata")
_Keys = Collection[str] | None  # items of a shard of the source, or all of them


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An index beside its source.

    Attributes:
      kept: of the shards of the index that are not what they were, which rows stay (rows,).
      todo: shards of the source to embed, with the items of each that are not in the index.
      left: whether anything of the index is in the source, by its name.
      changed: some of the rows that do not stay.
    """

    kept: dict[int, np.ndarray]
    todo: list[tuple[int, _Keys]]
    left: bool
    changed: list[str]


def compare(folder: Place, entries: dict[int, Entry], source: Source) -> Comparison:
    """Compares what is done with what there is.

    Raises:
      ValueError: if the source cannot tell what changed.
    """
    if not isinstance(source, Stamped):
        raise ValueError(
            f"a {type(source).__name__} does not say what changed in it, so that an index of it "
            "cannot be updated; embed into a new folder"
        )
    files: dict[str, tuple[int, str]] = {}
    items: dict[str, tuple[int, str, str | None]] = {}
    for number, shard in enumerate(source.shards()):
        if (stamp := source.stamp(number)) is not None:
            files[shard.name] = number, stamp
            continue
        for key, own in source.stamps(number):
            items[escaped(key)] = number, key, own
    names, left = {*items, *files}, False
    kept: dict[int, np.ndarray] = {}
    changed: list[str] = []
    for number, entry in entries.items():
        if entry.stamp is not None:
            left = left or entry.name in names
            if files.get(entry.name, (0, None))[1] == entry.stamp and not entry.passing:
                del files[entry.name]
            else:
                kept[number] = np.zeros(entry.rows, bool)
                changed.append(entry.name)
            continue
        rows = read_names(folder, entry).to_pydict()
        stays = np.zeros(len(rows["key"]), bool)
        for row, key in enumerate(rows["key"]):
            stamp, error = rows["stamp"][row], rows["error"][row]
            left = left or key in names
            there = items.get(key)
            # What cannot be opened has no stamp, and an index of an earlier version none at all.
            known = stamp is not None or error is not None
            passing = error is not None and bool(entry.passing)
            if there and there[2] == stamp and known and not passing:
                stays[row] = True
                del items[key]
            elif error is None:
                changed.append(key)
        # The `.npy` layout has no rows of errors, which are tried again then.
        if not stays.all() or len(stays) < entry.rows:
            kept[number] = stays
    todo: dict[int, Any] = {number: None for number, _ in files.values()}
    for number, key, _ in items.values():
        todo.setdefault(number, set()).add(key)
    return Comparison(kept, sorted(todo.items()), left or not entries, changed)


def take_out(folder: Path, ledger: Ledger, comparison: Comparison) -> int:
    """Removes the rows that do not stay; how many. Whatever no entry speaks of goes with them."""
    removed = 0
    for number, stays in comparison.kept.items():
        entry = ledger.entries()[number]
        removed += len(stays) - int(stays.sum())
        if not stays.any():
            ledger.forget(number)
            continue
        paths = write_kept(folder, entry, stays)
        rows = read_names(folder, entry).to_pydict()
        errors = [(k, e) for k, e in zip(rows["key"], rows["error"], strict=True) if e is not None]
        ledger.write(number, entry.name, int(stays.sum()), errors, paths, entry.stamp)
    known = {file["path"] for entry in ledger.entries().values() for file in entry.files}
    for path in (path for name in _FOLDERS for path in (folder / name).glob("[!.]*")):
        if path.relative_to(folder).as_posix() not in known:
            path.unlink(missing_ok=True)
    return removed


def brought_up_to_date(
    folder: Place, ledger: Ledger, source: Source, there: Manifest, ours: Manifest, *, update: bool
) -> tuple["Rest", int] | None:
    """What is left to do after what went is taken out, and how many rows that were.

    None where the folder is a job as any other: never updated, and not to be now.

    Args:
      there, ours: the manifest in the folder, and what it would be.
      update: whether what changed may be, or else is refused.

    Raises:
      ValueError: if something changed that may not have; if nothing of the index is in the
        source, which is another one then; if the source cannot tell.
    """
    entries = ledger.entries()
    updates = there.source.get("updates", 0)
    contents = there.source.get("contents")
    numbered = bool(updates or (update and entries))
    if not numbered and contents in (None, ours.source["contents"]):
        return None
    comparison = compare(folder, entries, source)
    if not update and comparison.changed:
        some = ", ".join(comparison.changed[:3]) + ", ..." * (len(comparison.changed) > 3)
        raise SettingError(
            f"{folder} holds another job: the data have changed: {len(comparison.changed):,} of "
            f"what is done have other contents now ({some})",
            "update",
            "choose another folder, or embed these again with {}",
        )
    if not numbered:
        _write(folder, there, {"contents": ours.source["contents"]})
        return None
    if not comparison.left:
        raise ValueError(
            f"{folder}: nothing of what is in it is in the source any more; if that is another "
            "source, choose another folder"
        )
    gone = sum(not stays.any() for stays in comparison.kept.values())
    shards = len(entries) - gone + len(Rest(source, entries, comparison.todo).todo())
    if comparison.kept or comparison.todo:
        (folder / SUMMARY).unlink(missing_ok=True)
    if comparison.kept or comparison.todo or ours.source["identity"] != there.source["identity"]:
        _write(folder, there, ours.source | {"shards": shards, "updates": updates + 1})
    elif ours.source["contents"] != contents:
        _write(folder, there, {"contents": ours.source["contents"]})
    assert isinstance(folder, Path)
    removed = take_out(folder, ledger, comparison)
    return Rest(source, ledger.entries(), comparison.todo), removed


def _write(folder: Place, there: Manifest, source: dict[str, Any]) -> None:
    changed = dataclasses.replace(there, source=there.source | source)
    write_json(folder / NAME, dataclasses.asdict(changed))


class Rest:
    """What is to be embedded of a source, in shards that are numbered after those of an index.

    A file that is a shard of the source is one here; items come together, up to as many as
    the largest shard of the source has.
    """

    def __init__(
        self, source: Source, entries: dict[int, Entry], todo: list[tuple[int, _Keys]]
    ) -> None:
        self._source = source
        self.origin = getattr(source, "origin", None)
        shards = source.shards()
        size = max((shard.items or 1 for shard in shards), default=1)
        # Beyond those of the index; their places hold those, to count the items.
        self.first = max(entries, default=-1) + 1
        self._done = [
            Shard(entries[n].name, entries[n].rows) if n in entries else Shard("", 0)
            for n in range(self.first)
        ]
        self._parts: list[list[tuple[int, _Keys]]] = []
        self._shards: list[Shard] = []
        held = 0
        for number, keys in todo:
            if keys is None:
                self._parts.append([(number, None)])
                self._shards.append(shards[number])
                held = 0
                continue
            count = len(keys)
            if not held or held + count > size:
                self._parts.append([])
                self._shards.append(Shard(f"new of {shards[number].name}", 0))
                held = 0
            held += count
            several = shards[number].items is None
            self._parts[-1].append((number, keys))
            self._shards[-1] = self._shards[-1]._replace(items=None if several else held)

    def shards(self) -> list[Shard]:
        return self._done + self._shards

    def todo(self) -> list[int]:
        """The numbers of the shards that are not done."""
        return list(range(self.first, self.first + len(self._shards)))

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        for number, own in self._parts[shard - self.first]:
            wanted = own if keys is None else keys
            # A source of one's own may know of no keys.
            yield from (
                self._source.read(number) if wanted is None else self._source.read(number, wanted)
            )

    def stamp(self, shard: int) -> str | None:
        """Of the file that a shard is."""
        ((number, keys), *_) = self._parts[shard - self.first]
        return (
            self._source.stamp(number)
            if isinstance(self._source, Stamped) and keys is None
            else None
        )

    def identity(self) -> str:
        return self._source.identity()
