"""What a run says about itself: a line of JSON a step; TensorBoard and W&B where installed."""

import contextlib
import hashlib
import importlib
import json
import math
import os
import warnings
from pathlib import Path
from typing import Any, Protocol

from siglip_jax.messages import reason
from siglip_jax.weights.staging import staged


class Journal:
    """`metrics.jsonl` in a run's folder, and what other loggers that are installed write there.

    TensorBoard (`tensorboard` or `tensorboardX`) writes to `tensorboard/`, Weights & Biases to
    `wandb/`. What goes wrong with these is a warning, and they are left alone from then on.

    Args:
      folder: of the run.
      step: where the run begins again. Lines after it were written by steps that an
        interruption undid, and are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / "metrics.jsonl"
        if path.exists():
            kept = [line for line in _lines(path) if _step(line) <= step]
            with staged(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept))
        self._path = path
        self._file = path.open("a", buffering=1)
        self._others: list[_Logger] = []
        for logger in (_TensorBoard, _WeightsAndBiases):
            with self._unharmed(logger.__name__), contextlib.suppress(ImportError):
                self._others.append(logger(folder))

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Numbers of one step, under names such as `loss` or `evaluate/recall@1`.

        Raises:
          OSError: if the disk is full.
        """
        # JSON has no NaN, of which an evaluation may consist.
        plain = {name: v if math.isfinite(v) else None for name, v in values.items()}
        try:
            self._file.write(json.dumps({"step": step, **plain}, allow_nan=False) + "\n")
        except OSError as error:
            raise OSError(f"{self._path}: cannot be written: {reason(error)}") from error
        for other in list(self._others):
            with self._unharmed(type(other).__name__, other):
                other.write(step, values)

    def close(self) -> None:
        # What could not be written is tried once more, and was told the first time.
        with contextlib.suppress(OSError):
            self._file.close()
        for other in self._others:
            with self._unharmed(type(other).__name__):
                other.close()

    @contextlib.contextmanager
    def _unharmed(self, name: str, other: "_Logger | None" = None) -> Any:
        """A run does not end because of its loggers, which raise errors of all kinds."""
        try:
            yield
        except Exception as error:
            if other is not None:
                self._others.remove(other)
            name = name.lstrip("_")
            warnings.warn(f"{name} is left out from here on: {reason(error)}", stacklevel=3)


class _Logger(Protocol):
    def __init__(self, folder: Path) -> None: ...
    def write(self, step: int, values: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        try:
            make: Any = importlib.import_module("tensorboard.summary").Writer
        except ImportError:
            make = importlib.import_module("tensorboardX").SummaryWriter
        self._writer = make(str(folder / "tensorboard"))
        self.close = self._writer.close

    def write(self, step: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)


class _WeightsAndBiases:
    """Offline unless WANDB_MODE says otherwise: nothing leaves the machine unasked."""

    def __init__(self, folder: Path) -> None:
        wandb: Any = importlib.import_module("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        record = folder / "recipe.json"
        self._run = wandb.init(
            mode=mode,
            dir=str(folder),
            project=os.environ.get("WANDB_PROJECT", "siglip_jax"),
            name=folder.name,
            # The same run after an interruption.
            id=hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16],
            resume="allow",
            config=json.loads(record.read_text("utf-8")) if record.exists() else None,
            settings=wandb.Settings(silent=True),
        )
        self.close = self._run.finish

    def write(self, step: int, values: dict[str, Any]) -> None:
        self._run.log(values, step=step)


def _lines(path: Path) -> list[str]:
    """The lines of a journal; but for the last, which may be cut off, all must be whole."""
    lines = path.read_text("utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines[:-1], 1):
        if _step(line) == math.inf:
            raise ValueError(
                f"{path}: line {number} is not one of a run's journal; remove the line, or the file"
            )
    return lines


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf  # cut off in the middle of a line


def read_journal(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, for plots."""
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
