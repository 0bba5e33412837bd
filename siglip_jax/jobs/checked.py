"""Whether the files of a job are what it wrote, by the digests in its ledger."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from siglip_jax.jobs.durable import sha256, write_json
from siglip_jax.jobs.ledger import Entry
from siglip_jax.jobs.result import SUMMARY
from siglip_jax.messages import reason

_CHECKED = "checked"  # in summary.json: what was read, so that it is read once


class Damage(NamedTuple):
    """A file that is not what a job wrote, and what is wrong with it."""

    shard: int
    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.path} {self.problem}"


def damage(folder: Path, entries: Iterable[Entry], *, anew: bool = False) -> Iterator[Damage]:
    """The files of `entries` that are missing, of another size, or of other contents.

    What was found right once is not read again until it changes.

    Args:
      anew: read everything.
    """
    summary = _summary(folder)
    before = summary.get(_CHECKED, {})
    known: dict[str, Any] = {} if anew or not isinstance(before, dict) else dict(before)
    for entry in entries:
        for file in entry.files:
            problem = _problem(folder / file["path"], file, known)
            if problem:
                yield Damage(entry.shard, folder / file["path"], problem)
    if summary and known != before:
        # A folder that may only be read is read each time.
        with contextlib.suppress(OSError):
            write_json(folder / SUMMARY, summary | {_CHECKED: known})


def _problem(path: Path, file: dict[str, Any], known: dict[str, Any]) -> str | None:
    try:
        state = path.stat()
        if state.st_size != file["bytes"]:
            return f"has {state.st_size:,} bytes, the job wrote {file['bytes']:,}"
        seen = [state.st_size, state.st_mtime_ns, file["sha256"]]
        if known.get(file["path"]) == seen:
            return None
        if sha256(path) != file["sha256"]:
            known.pop(file["path"], None)
            return "has other contents than the job wrote"
        known[file["path"]] = seen
    except FileNotFoundError:
        return f"is missing, the job wrote {file['bytes']:,} bytes"
    except OSError as error:
        return f"cannot be read: {reason(error)}"
    return None


def _summary(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / SUMMARY).read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}
