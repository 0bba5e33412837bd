"""Progress on stderr: a bar for a person, and of long runs a line now and then for a log."""

import sys
import time
from typing import Any, Self

from siglip_jax.cli.output import printable

_PATIENCE = 1.0  # seconds without a bar


class Bar:
    """`with Bar("embedding", total=9) as bar: bar.advance()`.

    Args:
      what: is being done.
      total: of how many; 0 if unknown.
      unit: what is counted, for sizes "bytes".
      log: seconds between two lines where stderr is no terminal; default: no lines.
      keep: leave the bar on the screen once it is full.
    """

    def __init__(
        self,
        what: str = "",
        *,
        total: int = 0,
        unit: str = "images",
        log: float | None = None,
        keep: bool = False,
    ) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._log, self._keep = log, keep
        self._start = self._logged = time.monotonic()
        self._shown: Any = None
        self._task: Any = None
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._shown is not None:
            self._shown.stop()

    def advance(self) -> None:
        self.update(self.done + 1, self.total)

    def update(self, done: int, total: int, said: str = "", *, what: str | None = None) -> None:
        """`done` of `total`, 0 if unknown; `said` stands beside it; `what` is done from now on."""
        self.done, self.total = done, total
        self.what = self.what if what is None else what
        if self._terminal:
            self._draw(said)
        elif self._log is not None and time.monotonic() - self._logged > self._log:
            self.say(self._line(said))

    def say(self, line: str) -> None:
        """A line that stays, above the bar; where there is no terminal, only in a log."""
        line = printable(line)
        if self._terminal:
            self._show().console.print(line, markup=False)
        elif self._log is not None:
            self._logged = time.monotonic()
            print(f"siglip-jax: {line}", file=sys.stderr)

    def _line(self, said: str) -> str:
        of = f" of {self.total:,}" if self.total else ""
        return " ".join(filter(None, (self.what, f"{self.done:,}{of}", said)))

    def _draw(self, said: str) -> None:
        if self._shown is None and time.monotonic() - self._start < _PATIENCE:
            return
        self._show().update(
            self._task,
            description=self.what,
            completed=self.done,
            total=self.total or None,
            said=said,
        )

    def _show(self) -> Any:
        if self._shown is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._shown = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn() if self.unit == "bytes" else MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[said]}"),
                console=Console(stderr=True, highlight=False),
                transient=not self._keep,
            )
            self._shown.start()
            self._task = self._shown.add_task(
                self.what, total=self.total or None, completed=self.done, said=""
            )
        return self._shown
