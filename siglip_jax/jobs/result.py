"""How a job ended."""

import dataclasses
import itertools
import json
import signal as signals
from typing import Any

from siglip_jax.data.error_share import ErrorShare
from siglip_jax.jobs.bucket import Place
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.part import Part
from siglip_jax.messages import counted

SUMMARY = "summary.json"
REASONS = 3  # that a result names; the rows have all


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobResult:
    """What `embed` and `score` return.

    Attributes:
      folder: of the output.
      finished: whether all shards are done, by whatever processes. Not, where the errors are
        more than allowed and some of them may pass: the next run tries these again.
      already: it was finished before, and nothing was done.
      shards, done: how many there are, and how many are done.
      items, errors: in the shards that are done; errors could not be read.
      excessive: more of them than allowed, which a short job ends with and a long one stops at.
      signal: that told it to stop, None if it was not told.
      reasons: `{"key": ..., "error": ...}` of the first few in error.
      passing: errors that may pass, such as of a server that did not answer.
      removed: rows that an update took out, whose items went or changed; None for no update.
      unreadable: shards that could not be opened; the next run tries them again.
      part: which of how many this process did; None for all.
      part_done: whether all shards of that part are done.
      run: of this process: `items`, `seconds`, `rate` (items a second), `device_busy` (share of
        the time), `bottleneck` and the seconds that each side was `waited_for`.
    """

    folder: Place
    finished: bool
    shards: int
    done: int
    items: int
    errors: int
    already: bool = False
    excessive: bool = False
    signal: int | None = None
    reasons: tuple[dict[str, str], ...] = ()
    passing: int = 0
    removed: int | None = None
    unreadable: tuple[str, ...] = ()
    part: Part | None = None
    part_done: bool = False
    run: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        folder: Place,
        ledger: Ledger,
        shards: int,
        *,
        share: ErrorShare,
        part: Part | None = None,
        **rest: Any,
    ) -> "JobResult":
        known = ledger.entries()
        entries = known.values()
        if part is not None:
            # Of all parts, as far as is known: what all of them may have is a share of all items.
            share.count = sum(entry.errors for entry in entries)
        items = sum(entry.rows for entry in entries)
        passing = sum(entry.passing or 0 for entry in entries)
        excessive = share.exceeded(items)
        return cls(
            folder=folder,
            finished=len(entries) == shards and not (excessive and passing),
            shards=shards,
            done=len(entries),
            items=items,
            errors=sum(entry.errors for entry in entries),
            excessive=excessive,
            passing=passing,
            part=part,
            part_done=part is not None and all(n in known for n in part.shards(shards)),
            reasons=tuple(
                itertools.islice((r for entry in entries for r in entry.reasons), REASONS)
            ),
            **rest,
        )

    @property
    def code(self) -> int:
        """Of a process that ends with it: 0; 2 if anything is missing; 143 or 130 if told to."""
        if not self.finished and self.signal is not None:
            return 128 + self.signal
        done = self.finished or self.part_done
        # A part may have no shard, and come before the others.
        items = self.items or (self.part_done and not self.finished)
        return 0 if done and items and not self.excessive else 2

    def describe(self) -> dict[str, Any]:
        """Plain JSON types; what `summary.json` holds, without the folder's name."""
        plain = dataclasses.asdict(self)
        plain |= {name: list(plain[name]) for name in ("reasons", "unreadable")}
        del plain["folder"], plain["already"]
        if self.part is None:
            del plain["part"], plain["part_done"]
        return plain

    def _bad(self) -> str:
        """What could not be read, and why, for a sentence."""
        if not self.items and self.finished:
            return ": there is none in the source"
        if not self.errors:
            return ""
        named = [
            r["error"] if r["key"] in r["error"] else f"{r['key']}: {r['error']}"
            for r in self.reasons
        ]
        more = "; ..." if self.errors > len(named) else ""
        return f", {self.errors:,} of which could not be read ({'; '.join(named)}{more})"

    def _speed(self) -> str:
        """How fast it went here, for a sentence."""
        if not self.run.get("items"):
            return ""
        busy = self.run["device_busy"]
        return (
            f"; {self.run['rate']:.4g} a second here, the device busy {busy:.0%} of the time: "
            f"{self.run['bottleneck']} is the bottleneck"
        )

    def sentence(self) -> str:
        """One line for a person."""
        items = f"{counted(self.items, 'item')} in {counted(self.done, 'shard')}"
        if self.part_done and not self.finished:
            return (
                f"{self.folder}: {self.part} is done; of all parts {self.done:,} of "
                f"{counted(self.shards, 'shard')} are ({items}{self._bad()}){self._speed()}"
            )
        if self.already:
            ended = "finished already" if self.removed is None else "up to date"
            return f"{self.folder} is {ended}: {items}{self._bad()}; nothing to do"
        bad = self._bad()
        if self.removed is not None:
            embedded = self.run.get("items", 0)
            bad += f"; updated: {embedded:,} embedded, {counted(self.removed, 'row')} taken out"
        speed = self._speed()
        if self.finished:
            return f"{self.folder}: {items}{bad}{speed}"
        why = ""
        if self.signal is not None:
            why = f"stopped by {signals.Signals(self.signal).name}: "
        elif self.unreadable:
            some = counted(len(self.unreadable), "shard")
            why = f"{some} could not be opened ({self.unreadable[0]}): "
        elif self.done == self.shards:
            why = f"{counted(self.passing, 'item')} may be readable later: "
        return (
            f"{self.folder}: {why}{self.done:,} of {counted(self.shards, 'shard')} are done "
            f"({items}{bad}); the same command goes on{speed}"
        )


def finished(folder: Place) -> bool:
    """Whether the job in a folder is."""
    try:
        return bool(json.loads((folder / SUMMARY).read_text("utf-8"))["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
