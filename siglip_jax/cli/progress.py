"""A progress bar on stderr, for a person and only for what takes a while."""

import sys
import time
from typing import Any, Self

_PATIENCE = 1.0  # seconds without a bar


class Bar:
    """`with Bar("embedding", total=9) as bar: bar.advance()`; silent unless a person looks."""

    def __init__(self, what: str, *, total: int = 0, unit: str = "pictures") -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._start = time.monotonic()
        self._shown: Any = None
        self._task: Any = None
        self._silent = not sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._shown is not None:
            self._shown.stop()

    def advance(self) -> None:
        self.update(self.done + 1, self.total)

    def update(self, done: int, total: int) -> None:
        """`done` of `total`, 0 if unknown."""
        self.done, self.total = done, total
        if self._silent or (self._shown is None and time.monotonic() - self._start < _PATIENCE):
            return
        if self._shown is None:
            self._shown, self._task = self._show()
        self._shown.update(self._task, completed=done, total=total or None)

    def _show(self) -> tuple[Any, Any]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        count = DownloadColumn() if self.unit == "bytes" else MofNCompleteColumn()
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            count,
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        progress.start()
        return progress, progress.add_task(self.what, total=self.total or None)
