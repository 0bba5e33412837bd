"""What actors of Ray report: entries for the ledger, errors, and how fast they are together."""

import time
from pathlib import Path
from typing import Any

from siglip_jax.data import ErrorShare
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.own_process import Ran
from siglip_jax.jobs.progress import JobProgress
from siglip_jax.jobs.shard_actor import Report
from siglip_jax.jobs.work import Work
from siglip_jax.jobs.worker import UNREADABLE, too_many_unreadable
from siglip_jax.recent_rate import RecentRate
from siglip_jax.scoring.meter import SIDES


class RayRecords:
    """Reports of all actors, of which this process keeps the ledger.

    Attributes:
      rotated: images with an EXIF rotation, which is not applied.
    """

    def __init__(self, work: Work, ledger: Ledger, errors: ErrorShare) -> None:
        self.rotated, self._unreadable = 0, list[str]()
        self._ledger, self._errors = ledger, errors
        sizes = [shard.items for shard in work.source.shards()]
        self._total = 0 if None in sizes else sum(size or 0 for size in sizes)
        self._items, self._begun, self._rate = 0, time.monotonic(), RecentRate()
        self._meters: dict[str, dict[str, Any]] = {}  # the latest of each actor
        self._rate.begin(ledger.rows)

    def add(self, report: Report) -> None:
        """Writes down what became of a shard.

        Raises:
          ValueError: one line: files are missing where the actor is, too many shards cannot be
            opened, or too many items read. The shard is not done then.
        """
        self.rotated += report.rotated
        self._meters[report.actor] = report.meter
        if report.missing is not None and Path(report.missing).exists():
            raise ValueError(
                f"{report.missing} of the source is not on the worker {report.host}; give all "
                "nodes the same files, or a source in a bucket"
            )
        if report.entry is None:
            self._unreadable.append(f"{report.unreadable} (on the worker {report.host})")
            if len(self._unreadable) > UNREADABLE:
                raise too_many_unreadable(self._unreadable)
            return
        entry, errors = report.entry, self._errors
        for one in entry.reasons:
            errors.add(one["key"], one["error"])
        errors.count += entry.errors - len(entry.reasons)
        if entry.errors:
            errors.check(self._ledger.rows + entry.rows)
        self._ledger.add(entry)
        self._items += entry.rows

    def progress(self) -> JobProgress:
        """What is said while the job runs; items count once their shard is done."""
        done = self._ledger.rows
        self._rate.count(done)
        left = self._rate.seconds_left(self._total - done) if self._total else None
        errors, rate = self._errors.count, self._rate.value
        return JobProgress(done, self._total, errors, rate, self._busy(), left)

    def ran(self) -> Ran:
        """All of it. Seconds are those of the run, of which something was waited for are sums."""
        meters = self._meters.values()
        compiling = max((meter["compiling"] for meter in meters), default=0.0)
        seconds = max(time.monotonic() - self._begun - compiling, 1e-9)
        waited = {side: sum(meter["waited_for"][side] for meter in meters) for side in SIDES}
        meter = {
            "items": self._items,
            "seconds": round(seconds, 3),
            "compiling": round(compiling, 3),
            "rate": round(self._items / seconds, 3),
            "device_busy": round(self._busy(), 4),
            "bottleneck": max(SIDES, key=waited.__getitem__) if self._items else None,
            "waited_for": {side: round(waited[side], 3) for side in SIDES},
        }
        return Ran(tuple(self._unreadable), meter)

    def _busy(self) -> float:
        """Share of the time of all actors."""
        meters = self._meters.values()
        seconds = sum(meter["seconds"] for meter in meters)
        return sum(meter["device_busy"] * meter["seconds"] for meter in meters) / max(seconds, 1e-9)
