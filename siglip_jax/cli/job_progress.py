"""How a bulk job gets on: a bar for a person, a line a minute for a log."""

import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from siglip_jax.jobs.progress import Progress

_LOG = 60.0  # seconds between two lines of a log


class JobBar:
    """`with JobBar() as bar:` a job that reports to `bar.update`."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown: Any = None
        self._task: Any = None
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._shown is not None:
            self._shown.stop()

    def update(self, progress: "Progress") -> None:
        if self._terminal:
            if self._shown is None:
                self._shown, self._task = _bar()
            self._shown.update(
                self._task,
                completed=progress.done,
                total=progress.total or None,
                said=sentence(progress),
            )
        elif time.monotonic() - self._last > _LOG:
            self._last = time.monotonic()
            of = f" of {progress.total:,}" if progress.total else ""
            print(f"siglip-jax: {progress.done:,}{of} {sentence(progress)}", file=sys.stderr)


def sentence(progress: "Progress") -> str:
    """Speed, load, time left and errors."""
    parts = [f"{progress.rate:.4g}/s", f"device {progress.busy:.0%} busy"]
    if progress.remaining is not None:
        minutes, seconds = divmod(round(progress.remaining), 60)
        hours, minutes = divmod(minutes, 60)
        parts.append(f"{hours}:{minutes:02}:{seconds:02} left")
    if progress.errors:
        parts.append(f"{progress.errors:,} unreadable")
    return ", ".join(parts)


def _bar() -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        console=Console(stderr=True),
        transient=True,
    )
    bar.start()
    return bar, bar.add_task("", total=None, said="")
