"""How far a job is."""

from typing import NamedTuple


class JobProgress(NamedTuple):
    """What a job reports while it runs.

    Attributes:
      done: items whose results are back, by earlier runs and other processes as well.
      total: 0 if only reading tells.
      errors: items that could not be read.
      rate: items a second, of this process in the last 30 seconds; None before its first batches
        are back.
      busy: share of the time that the device computed.
      remaining: seconds, None if unknown.
    """

    done: int
    total: int
    errors: int
    rate: float | None
    busy: float
    remaining: float | None
