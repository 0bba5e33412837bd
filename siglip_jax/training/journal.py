"""What a run says about itself: a line of JSON a step, and TensorBoard where installed."""

import contextlib
import json
from pathlib import Path
from typing import Any

from siglip_jax.messages import reason
from siglip_jax.weights.staging import staged


class Journal:
    """`metrics.jsonl` in a run's folder, and TensorBoard events beside it.

    Args:
      folder: of the run.
      step: where the run begins again. Lines after it were written by steps that an
        interruption undid, and are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= step]
            with staged(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept))
        self._path = path
        self._file = path.open("a", buffering=1)
        self._board = _tensorboard(folder)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Numbers of one step, under names such as `loss` or `evaluate/recall@1`.

        Raises:
          OSError: if the disk is full.
        """
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise OSError(f"{self._path}: cannot be written: {reason(error)}") from error
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        # What could not be written is tried once more, and was told the first time.
        with contextlib.suppress(OSError):
            self._file.close()
        if self._board is not None:
            self._board.close()


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # cut off in the middle of a line


def _tensorboard(folder: Path) -> Any:
    try:
        from tensorboard.summary import Writer  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return Writer(str(folder / "tensorboard"))


def read_journal(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, for plots."""
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
