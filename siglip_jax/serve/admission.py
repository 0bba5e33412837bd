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

    >>> admission = Admission(Limits(waiting_images=2), Metrics())
    >>> with admission.images(2), admission.images(1):
    ...     pass
    Traceback (most recent call last):
    siglip_jax.serve.errors.ApiError: the service is busy: ...
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._lock = limits, threading.Lock()
        self._gauges = {
            "requests": metrics.requests_in_flight,
            "waiting_images": metrics.images_in_flight,
            "waiting_texts": metrics.texts_in_flight,
            "bytes": metrics.bytes_in_flight,
            "pixels": metrics.pixels_in_flight,
        }
        self._held = dict.fromkeys(self._gauges, 0)
        self._done = {"waiting_images": 0, "waiting_texts": 0}
        self._rates = {what: RecentRate(clock=time.monotonic) for what in self._done}

    def held(self, what: str) -> int:
        """How many there are now of a bound, by its name in `Limits`."""
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

    def images(self, count: int) -> contextlib.AbstractContextManager[None]:
        """Around the embedding of so many images."""
        return self._embedding("waiting_images", count)

    def image_may_come(self) -> None:
        """Before a request is read that is of an image at least.

        Raises:
          ApiError: 429 if no more may wait; it would be refused when it has been read.
        """
        with self._lock:
            if self._held["waiting_images"] >= self._limits.waiting_images:
                raise self._refusal("waiting_images", 1, self._limits.waiting_images)

    def texts(self, count: int) -> contextlib.AbstractContextManager[None]:
        """Around the embedding of so many texts."""
        return self._embedding("waiting_texts", count)

    @contextlib.contextmanager
    def _embedding(self, what: str, count: int) -> Iterator[None]:
        with self._hold(what, count):
            yield
        with self._lock:
            self._done[what] += count
            self._rates[what].count(self._done[what])

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
        name = what.replace("_", " ")
        if count > most:
            return ApiError(
                413,
                f"the request has {count:,} {name.removeprefix('waiting ')}, and the service holds "
                f"{most:,} at a time",
            )
        wait = self._wait()
        return ApiError(
            429,
            f"the service is busy: it holds {self._held[what]:,} of {most:,} {name}; "
            f"try again in {wait} s",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(wait)},
        )

    def _wait(self) -> int:
        """Seconds until what waits is done, at the rate of the last seconds."""
        left = [rate.seconds_left(self._held[what]) or 0 for what, rate in self._rates.items()]
        return min(max(math.ceil(max(left)), 1), _LONGEST)
