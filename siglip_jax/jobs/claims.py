"""Which of several processes works on which shard.

A claim is a file that only one process can create. Its owner touches it every few seconds;
one that has not been touched for long is taken over. Claims only save work: two processes
that compute the same shard write the same bytes under the same names.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from siglip_jax.jobs.ledger import Ledger

PATIENCE = 60.0  # seconds without a touch until an owner counts as dead
_BEATS = 6  # in that time


class Turns(Protocol):
    """Which shards a process does, one after another."""

    def next(self, *, wait: bool) -> int | None:
        """A shard for this process, None if there is none left, or none now if not to `wait`."""
        ...

    def release(self, shard: int) -> None:
        """A shard is done, or will not be."""
        ...

    def close(self) -> None:
        """No other is asked for."""
        ...


class AllMine:
    """The shards of a process that is alone."""

    def __init__(self, todo: list[int]) -> None:
        self._todo = todo[::-1]

    def next(self, *, wait: bool) -> int | None:
        return self._todo.pop() if self._todo else None

    def release(self, shard: int) -> None:
        """No other process waits for it."""

    def close(self) -> None:
        """There is nothing to give back."""


class Claims:
    """The shards of one of several processes on a folder.

    Args:
      todo: shards that are not done; in the order in which to try them.
      stopped: asked while waiting.
      patience: see `PATIENCE`; the same for all processes.
    """

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        todo: list[int],
        stopped: Callable[[], bool],
        patience: float = PATIENCE,
    ) -> None:
        self._folder, self._ledger, self._stopped = folder / "claims", ledger, stopped
        self._folder.mkdir(exist_ok=True)
        self._todo, self._patience = list(todo), patience
        self.me = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}"
        self._held: set[int] = set()
        # What a claim of another looked like, and since when by our own clock: those of hosts
        # may differ, and the file server's as well.
        self._seen: dict[int, tuple[tuple[str, int], float]] = {}
        self._closed = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="claims", daemon=True)
        self._heart.start()

    def next(self, *, wait: bool) -> int | None:
        """A shard for this process, None if there is none left, or none now if not to `wait`."""
        while True:
            for shard in list(self._todo):
                if shard in self._held:
                    continue
                if self._ledger.done(shard):
                    self._todo.remove(shard)
                elif self._take(shard):
                    # It may have been finished since we looked.
                    if self._ledger.done(shard):
                        self.release(shard)
                        self._todo.remove(shard)
                        continue
                    self._todo.remove(shard)
                    return shard
            if not wait or not self._todo or self._stopped():
                return None
            self._closed.wait(min(self._patience / _BEATS, 1.0))

    def release(self, shard: int) -> None:
        """Gives a claim back, after the shard is done or because it will not be."""
        self._held.discard(shard)
        self._seen.pop(shard, None)
        if self._owner(shard) == self.me:
            self._path(shard).unlink(missing_ok=True)

    def close(self) -> None:
        """Gives all claims back."""
        self._closed.set()
        self._heart.join()
        for shard in list(self._held):
            self.release(shard)

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard:05d}"

    def _owner(self, shard: int) -> str:
        try:
            return self._path(shard).read_text()
        except OSError:
            return ""

    def _take(self, shard: int) -> bool:
        try:
            with self._path(shard).open("x") as file:
                file.write(self.me)
        except FileExistsError:
            if not self._is_stale(shard) or not self._remove(shard):
                return False
            return self._take(shard)
        self._held.add(shard)
        return True

    def _is_stale(self, shard: int) -> bool:
        try:
            mark = self._owner(shard), self._path(shard).stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        if self._seen.get(shard, (None, 0.0))[0] != mark:
            self._seen[shard] = mark, now
        return now - self._seen[shard][1] > self._patience

    def _remove(self, shard: int) -> bool:
        """Moves a stale claim away, which only one process succeeds in."""
        expected = self._seen[shard][0][0]
        aside = self._folder / f".{shard:05d}.{secrets.token_hex(4)}.tmp"
        try:
            self._path(shard).rename(aside)
        except FileNotFoundError:
            return False
        mistaken = aside.read_text() != expected
        if mistaken:
            # Another has taken it over since we looked: give that one back.
            aside.rename(self._path(shard))
            return False
        aside.unlink()
        return True

    def _beat(self) -> None:
        while not self._closed.wait(self._patience / _BEATS):
            for shard in list(self._held):
                try:
                    os.utime(self._path(shard))
                except OSError:  # taken over: the first process to finish writes the shard
                    continue
