"""What a run says while it goes, and how it ends."""

from pathlib import Path
from typing import Any, NamedTuple


class Diverged(ValueError):
    """The loss or its gradient is no longer a number."""


class TrainingProgress(NamedTuple):
    """What `train` reports: after each step, and for the slow parts before and between."""

    what: str
    done: int
    total: int
    values: dict[str, float]


class TrainingResult(NamedTuple):
    """How a run ended.

    Attributes:
      step: steps done.
      finished: False if it was told to stop (SIGTERM, SIGINT) and saved.
      params: the weights.
      model: folder of the saved model; None unless finished.
      metrics: the last evaluation.
      signal: that told this process to stop; None if none did.
    """

    step: int
    finished: bool
    params: Any
    model: Path | None
    metrics: dict[str, float]
    signal: int | None = None
