"""How fast a pipeline runs, and which side of it waits for the other."""

import contextlib
import threading
import time
from collections.abc import Generator
from typing import Any, Literal

Side = Literal["reading and decoding", "the model", "writing"]
SIDES: tuple[Side, ...] = ("reading and decoding", "the model", "writing")


class Meter:
    """Seconds that each side waited or worked. Compiling is no part of them."""

    def __init__(self) -> None:
        self.items, self.compiling = 0, 0.0
        self.waited: dict[Side, float] = dict.fromkeys(SIDES, 0.0)
        self._busy, self._ready = 0.0, 0.0
        self._lock, self._start = threading.Lock(), time.monotonic()

    @contextlib.contextmanager
    def waiting(self, side: Side) -> Generator[None, None, None]:
        """The main thread waits for `side`."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.waited[side] += time.monotonic() - begin

    def compiled(self, seconds: float) -> None:
        self.compiling += seconds

    def computed(self, asked: float) -> None:
        """The device has just finished what it was asked for at `asked`."""
        now = time.monotonic()
        with self._lock:
            # It works on one thing after another: on this since the one before was ready.
            self._busy += max(now - max(asked, self._ready), 0.0)
            self._ready = now

    @property
    def seconds(self) -> float:
        """Since the beginning, without compiling."""
        return max(time.monotonic() - self._start - self.compiling, 1e-9)

    @property
    def rate(self) -> float:
        return self.items / self.seconds

    @property
    def busy(self) -> float:
        return min(self._busy / self.seconds, 1.0)

    @property
    def bottleneck(self) -> str:
        """The side that was waited for the longest."""
        return max(SIDES, key=self.waited.__getitem__)

    def describe(self) -> dict[str, Any]:
        return {
            "items": self.items,
            "seconds": round(self.seconds, 3),
            "compiling": round(self.compiling, 3),
            "rate": round(self.rate, 3),
            "device_busy": round(self.busy, 4),
            "bottleneck": self.bottleneck if self.items else None,
            "waited_for": {side: round(self.waited[side], 3) for side in SIDES},
        }
