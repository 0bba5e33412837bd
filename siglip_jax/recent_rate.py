"""How fast something goes now, and how long the rest of it takes at that rate."""

import collections
import itertools
import time
from collections.abc import Callable

WINDOW = 30.0  # seconds that count as the recent past
_GRAIN = 0.1  # seconds between two counts that are kept


class RecentRate:
    """Items a second over the last seconds, from counts of what is done.

    There is none before two counts differ from the first: what is done first has waited for
    loading and compiling, of which the rest knows nothing.

    Args:
      done: items that were done before the clock starts, such as by an earlier run.
      clock: seconds, for tests.

    >>> seconds = iter([10.0, 12.0, 12.0, 12.0])
    >>> rate = RecentRate(clock=lambda: next(seconds))
    >>> rate.count(32)  # the first batch, after ten seconds of compiling
    >>> rate.value is None
    True
    >>> rate.count(64)
    >>> rate.value, rate.seconds_left(160)
    (16.0, 10.0)
    """

    def __init__(self, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._before, self._clock = done, clock
        self._counts: collections.deque[tuple[float, int]] = collections.deque()

    def begin(self, done: int) -> None:
        """Forgets everything; `done` items are done already."""
        self._before = done
        self._counts.clear()

    def count(self, done: int) -> None:
        """`done` items are done by now."""
        counts = self._counts
        if done == (counts[-1][1] if counts else self._before):
            return
        now = self._clock()
        if len(counts) > 1 and now - counts[-2][0] < _GRAIN:
            counts.pop()
        counts.append((now, done))
        while len(counts) > 2 and now - counts[1][0] > WINDOW:
            counts.popleft()

    @property
    def value(self) -> float | None:
        """Items a second; None before anything can be said."""
        counts = list(self._counts)
        if len(counts) < 2:
            return None
        (begin, first), (end, last) = counts[0], counts[-1]
        # Between two batches time stands still, until the next one is overdue.
        longest = max(b - a for (a, _), (b, _) in itertools.pairwise(counts))
        now = self._clock()
        end = now if now - end > longest else end
        return (last - first) / max(end - begin, 1e-9)

    def seconds_left(self, items: int) -> float | None:
        """Until so many more are done, at this rate; None if that is unknown."""
        rate = self.value
        return items / rate if rate and rate > 0 else None
