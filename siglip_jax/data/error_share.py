"""How many items may be unreadable before the work stops: a wrong folder, not a few bad files."""

from siglip_jax.data.failures import SettingError

NAME = "max_error_share"  # in Python, in recipes, and with hyphens on the command line


class ErrorShare:
    """Counts items that cannot be read, and says when there are too many.

    Args:
      limit: the share of all items that may be, 0 for none at all.
      count: how many there are already, such as of a run that goes on.
      first: which and why, of these.
      errors: so many are let pass before the share says anything (one, if `limit` is 0).
      items: the share is of at least so many.
      what: the items are.
      kept: what to say of the work that is done.

    >>> share = ErrorShare(0.01)
    >>> share.add("a.jpg", "the file is empty")
    >>> share.check(1)
    """

    class Exceeded(SettingError):
        """More items are unreadable than may be."""

    def __init__(
        self,
        limit: float,
        count: int = 0,
        *,
        first: str | None = None,
        errors: int = 10,
        items: int = 0,
        what: str = "items",
        kept: str = "",
    ) -> None:
        if not 0 <= limit <= 1:
            raise ValueError(f"{NAME} must be a share from 0 to 1, got {limit}")
        self.limit, self.count = limit, count
        self._errors, self._items, self._what, self._kept = errors, items, what, kept
        self._first = first

    def add(self, key: str, reason: str) -> None:
        self.count += 1
        self._first = self._first or (reason if key in reason else f"{key}: {reason}")

    def exceeded(self, items: int) -> bool:
        """Whether of `items` in all too many are unreadable, however few there are."""
        return self.count > self.limit * items

    def check(self, items: int) -> None:
        """Called with the number of items so far, each time one is unreadable.

        Raises:
          ErrorShare.Exceeded: if there are too many.
        """
        enough = self.count >= (self._errors if self.limit else 1)
        if enough and self.exceeded(max(items, self._items)):
            raise self.error(items)

    def error(self, items: int) -> Exceeded:
        """What to raise where of `items` too many are unreadable."""
        return self.Exceeded(
            f"{self.count:,} of {items:,} {self._what} ({self.count / items:.1%}) cannot be read, "
            f"more than the share of {self.limit:.4g} that may be; the first is "
            f"{self._first or 'one of an earlier run'}",
            NAME,
            f"{self._kept}a larger {{}} allows more",
        )
