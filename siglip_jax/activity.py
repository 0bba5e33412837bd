"""What this process is busy with, said by the work itself and shown by a command.

    with activity("embedding images", total=len(images), unit="images") as step:
        ...
        step.advance(32)

Whoever works writes down a few numbers and draws nothing. `siglip_jax.cli.progress` looks at
the latest activity some times a second; without it nothing is ever shown.
"""

import contextlib
import threading
import time
from collections.abc import Generator

from siglip_jax.recent_rate import RecentRate

_running: list["Activity"] = []
_lock = threading.Lock()


class Activity:
    """Something that takes time.

    Attributes:
      what: is being done, such as "loading weights".
      total: of how many; 0 if unknown.
      unit: what is counted; for sizes "bytes".
      last: seconds that it took last time, if that is known.
      done: how many are done. An image counts once its embedding is back, not when it is read.
      said: more about it.
      begun: when, by `time.monotonic`.
      rate: of what is done.
    """

    def __init__(
        self, what: str, *, total: int = 0, unit: str = "", last: float | None = None
    ) -> None:
        self.what, self.total, self.unit, self.last = what, total, unit, last
        self.done, self.said = 0, ""
        self.begun, self.rate = time.monotonic(), RecentRate()

    def advance(self, count: int = 1) -> None:
        """`count` more are done; from any thread."""
        with _lock:
            self.done += count
            self.rate.count(self.done)

    def update(self, done: int, total: int = 0, said: str = "", *, what: str | None = None) -> None:
        """`done` of `total` are done; `said` stands beside it; `what` is done from now on."""
        with _lock:
            if what is not None and what != self.what:
                self.what, self.begun = what, time.monotonic()
                self.rate.begin(done)
            self.done, self.total, self.said = done, total, said
            self.rate.count(done)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.begun


@contextlib.contextmanager
def activity(
    what: str, *, total: int = 0, unit: str = "", last: float | None = None
) -> Generator[Activity, None, None]:
    """`what` is being done while the block runs; arguments as the attributes of `Activity`.

    >>> with activity("reading", total=2) as step:
    ...     step.advance()
    ...     latest().what, latest().done
    ('reading', 1)
    """
    step = Activity(what, total=total, unit=unit, last=last)
    with _lock:
        _running.append(step)
    try:
        yield step
    finally:
        with _lock:
            _running.remove(step)


def latest() -> Activity | None:
    """What began last and still runs."""
    with _lock:
        return _running[-1] if _running else None
