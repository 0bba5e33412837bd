"""Being told to stop: once, and the shard in hand is finished; twice, and at once."""

import signal
import threading
from types import FrameType
from typing import Any, Self


class Stop:
    """Listens for SIGTERM and SIGINT while its block runs, in the main thread only.

    Attributes:
      signal: the number of the one that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        # The next one does what it did before, which is to end the process.
        for other, handler in self._before.items():
            signal.signal(other, handler)
