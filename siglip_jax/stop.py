"""Being told to stop: once, and what is in hand is finished; twice, and at once."""

import signal
import threading
from types import FrameType
from typing import Any, Self

_listening: list["Stop"] = []


class Stop:
    """Listens for SIGTERM and SIGINT while its block runs, in the main thread only.

    Args:
      promise: what is done at the first of them, for a person.

    Attributes:
      signal: the number of the one that came, or None.

    >>> with Stop("the step in hand is finished") as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop(), stop.signal == signal.SIGTERM
    (True, True)
    """

    def __init__(self, promise: str) -> None:
        self.promise = promise
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._heard)
            _listening.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        if self in _listening:
            _listening.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        # The next one does what it did before, which is to end the process.
        for other, handler in self._before.items():
            signal.signal(other, handler)


def promised() -> str | None:
    """What is done at a first signal; None where nothing listens."""
    return _listening[-1].promise if _listening else None
