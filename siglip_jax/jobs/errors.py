"""How many items may be in error before a job stops: a wrong folder, not a few bad files."""

_ENOUGH = 10  # errors, before a share says anything


class ErrorShare:
    """Counts items in error, this run's and those in the ledger.

    Args:
      limit: the share of all items that may be, 0 for none at all.
      count: how many there are already.

    >>> share = ErrorShare(0.01, 0)
    >>> share.add("a.jpg", "the file is empty")
    >>> share.check(1)
    """

    class Exceeded(ValueError):
        """More items are in error than may be."""

    def __init__(self, limit: float, count: int) -> None:
        if not 0 <= limit <= 1:
            raise ValueError(f"max_error_share must lie in 0..1, got {limit}")
        self.limit, self.count = limit, count
        self._first: str | None = None

    def add(self, key: str, reason: str) -> None:
        self.count += 1
        self._first = self._first or (reason if key in reason else f"{key}: {reason}")

    def exceeded(self, items: int) -> bool:
        """Whether of `items` in all too many are in error, however few there are."""
        return self.count > self.limit * items

    def check(self, items: int) -> None:
        """Called with the number of items so far, each time one is in error.

        Raises:
          ErrorShare.Exceeded: if there are too many.
        """
        if self.exceeded(items) and self.count >= (_ENOUGH if self.limit else 1):
            raise self.Exceeded(
                f"{self.count:,} of {items:,} items cannot be read, more than the share of "
                f"{self.limit:.4g} that may be; the first now was {self._first}; what is finished "
                "is kept, and a larger error share goes on from there"
            )
