"""Memory that threads share."""

import threading


class Closed(Exception):
    """The budget was closed while a thread waited for room."""


class Budget:
    """Bytes (or anything countable) that threads may hold at a time.

    An amount that alone exceeds the limit waits until nothing else is held.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used, self.most = limit, 0, 0
        self._changed, self._closed = threading.Condition(), False

    def take(self, amount: int) -> None:
        """Waits for room.

        Raises:
          Closed: if `close` is called meanwhile.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or not self.used or self.used + amount <= self.limit
            )
            if self._closed:
                raise Closed
            self.used += amount
            self.most = max(self.most, self.used)

    def fits(self, amount: int) -> bool:
        """Whether there is room for more at present."""
        with self._changed:
            return self.used + amount <= self.limit

    def give(self, amount: int) -> None:
        with self._changed:
            self.used -= amount
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
