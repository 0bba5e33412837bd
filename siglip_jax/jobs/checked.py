"""Whether the files of a job are what it wrote, by the digests in its ledger."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from siglip_jax.jobs.bucket import BucketPath, Place
from siglip_jax.jobs.durable import sha256, write_json
from siglip_jax.jobs.ledger import Entry
from siglip_jax.jobs.result import SUMMARY
from siglip_jax.messages import reason

_CHECKED = "checked"  # in summary.json: what was read, so that it is read once
_MISSING, _SIZE = "is missing, the job wrote {:,} bytes", "has {:,} bytes, the job wrote {:,}"
_OTHER = "has other contents than the job wrote"


class Damage(NamedTuple):
    """A file that is not what a job wrote, and what is wrong with it."""

    shard: int
    path: Place
    problem: str

    def __str__(self) -> str:
        return f"{self.path} {self.problem}"


def damage(
    folder: Place,
    entries: Iterable[Entry],
    *,
    anew: bool = False,
    missing: bool = False,
    begun: bool = False,
) -> Iterator[Damage]:
    """The files of `entries` that are missing, of another size, or of other contents.

    What was found right once is not read again until it changes. Of a bucket nothing is looked
    at unasked: an object is whole once its entry is there, and reading all would cost more than
    the job.

    Args:
      anew: read everything.
      missing: of a bucket, list the objects.
      begun: of a job that is not finished, to which each start must not be a reading of all
        that is done: only what was changed after its entry was written is read.
    """
    if isinstance(folder, BucketPath):
        yield from _of_bucket(folder, entries, anew, missing)
        return
    summary = _summary(folder)
    before = summary.get(_CHECKED, {})
    known: dict[str, Any] = {} if anew or not isinstance(before, dict) else dict(before)
    for entry in entries:
        if begun and _as_written(str(folder), entry):
            continue
        for file in entry.files:
            problem = _problem(folder / file["path"], file, known)
            if problem:
                yield Damage(entry.shard, folder / file["path"], problem)
    if summary and known != before:
        # A folder that may only be read is read each time.
        with contextlib.suppress(OSError):
            write_json(folder / SUMMARY, summary | {_CHECKED: known})


def _of_bucket(
    folder: BucketPath, entries: Iterable[Entry], anew: bool, missing: bool
) -> Iterator[Damage]:
    listed: dict[str, dict[str, int]] = {}
    for entry in entries if anew or missing else ():
        for file in entry.files:
            path, (below, _, name) = folder / file["path"], file["path"].rpartition("/")
            if below not in listed:
                listed[below] = (folder / below).sizes()
            size = listed[below].get(name)
            if size is None:
                problem = _MISSING.format(file["bytes"])
            elif size != file["bytes"]:
                problem = _SIZE.format(size, file["bytes"])
            elif anew and hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
                problem = _OTHER
            else:
                continue
            yield Damage(entry.shard, path, problem)


def _as_written(folder: str, entry: Entry) -> bool:
    """Whether the files of a shard have their sizes, and are no younger than its entry.

    The entry is written after them. Of very many shards, names as strings take half the time.
    """
    try:
        written = os.stat(f"{folder}/ledger/{entry.shard:05d}.json").st_mtime_ns  # noqa: PTH116
        for file in entry.files:
            state = os.stat(f"{folder}/{file['path']}")  # noqa: PTH116
            if state.st_size != file["bytes"] or state.st_mtime_ns > written:
                return False
    except OSError:
        return False
    return True


def _problem(path: Path, file: dict[str, Any], known: dict[str, Any]) -> str | None:
    try:
        state = path.stat()
        if state.st_size != file["bytes"]:
            return _SIZE.format(state.st_size, file["bytes"])
        seen = [state.st_size, state.st_mtime_ns, file["sha256"]]
        if known.get(file["path"]) == seen:
            return None
        if sha256(path) != file["sha256"]:
            known.pop(file["path"], None)
            return _OTHER
        known[file["path"]] = seen
    except FileNotFoundError:
        return _MISSING.format(file["bytes"])
    except OSError as error:
        return f"cannot be read: {reason(error)}"
    return None


def _summary(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / SUMMARY).read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}
