"""What a service holds at a time, bounded: over a bound a request is refused at once."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator

from siglip_jax.recent_rate import RecentRate
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.limits import Limits
from siglip_jax.serve.metrics import Metrics

_LONGEST = 60  # seconds that a client is ever told to wait


class Admission:
    """Counts of what is accepted and not yet done, of any thread.

    >>> admission = Admission(Limits(items=2), Metrics())
    >>> with admission.items(2), admission.items(1):
    ...     pass
    Traceback (most recent call last):
    siglip_jax.serve.errors.ApiError: the service is busy: ...
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._lock = limits, threading.Lock()
        self._held = {"requests": 0, "items": 0, "bytes": 0, "pixels": 0}
        self._gauges = {
            "requests": metrics.requests_in_flight,
            "items": metrics.items_in_flight,
            "bytes": metrics.bytes_in_flight,
            "pixels": metrics.pixels_in_flight,
        }
        self._done, self._rate = 0, RecentRate(clock=time.monotonic)

    def held(self, what: str) -> int:
        """How many there are now of "requests", "items", "bytes" or "pixels"."""
        return self._held[what]

    def request(self) -> contextlib.AbstractContextManager[None]:
        """Around a request."""
        return self._hold("requests", 1)

    def bytes(self, count: int) -> contextlib.AbstractContextManager[None]:
        """Around the body of a request."""
        return self._hold("bytes", count)

    def pixels(self, count: int) -> contextlib.AbstractContextManager[None]:
        """Around an image, of so many pixels by its header."""
        return self._hold("pixels", count)

    @contextlib.contextmanager
    def items(self, count: int) -> Iterator[None]:
        """Around the embedding of so many images or texts."""
        with self._hold("items", count):
            yield
        with self._lock:
            self._done += count
            self._rate.count(self._done)

    @contextlib.contextmanager
    def _hold(self, what: str, count: int) -> Iterator[None]:
        with self._lock:
            most = getattr(self._limits, what)
            if self._held[what] + count > most:
                raise self._refusal(what, count, most)
            self._held[what] += count
            self._gauges[what].set(self._held[what])
        try:
            yield
        finally:
            with self._lock:
                self._held[what] -= count
                self._gauges[what].set(self._held[what])

    def _refusal(self, what: str, count: int, most: int) -> ApiError:
        if count > most:
            return ApiError(
                413, f"the request has {count:,} {what}, and the service holds {most:,} at a time"
            )
        wait = self._wait()
        return ApiError(
            429,
            f"the service is busy: it holds {self._held[what]:,} of {most:,} {what}; "
            f"try again in {wait} s",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(wait)},
        )

    def _wait(self) -> int:
        """Seconds until what is held is done, at the rate of the last seconds."""
        left = self._rate.seconds_left(self._held["items"])
        return min(max(math.ceil(left or 0), 1), _LONGEST)
