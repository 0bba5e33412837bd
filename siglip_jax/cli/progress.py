"""The progress of a command on stderr: one line with a spinner, or in a log a line now and then.

What is shown is the latest `siglip_jax.activity`.
"""

import contextlib
import io
import sys
import threading
from typing import Any, Self

from siglip_jax.activity import Activity, latest
from siglip_jax.cli.output import printable

_PATIENCE = 0.1  # seconds until something is shown
_FRAMES = 10  # a second
INTERVAL = 30.0  # seconds between two lines of a log
_BAR = 24  # columns of a bar, at most
_LEAST = 12  # columns for what is done


class Progress:
    """Shows what the process is busy with while the block runs.

    On a terminal a line with a spinner appears after a tenth of a second, and is gone once the
    block ends or the command writes its result. Elsewhere a plain line comes every 30 seconds.

    Args:
      silent: show nothing.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._silent, self._live, self._spinner = silent, None, None
        self._closed, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._stdout: Any = None

    def __enter__(self) -> Self:
        if self._silent:
            return self
        terminal = sys.stderr.isatty()
        if terminal and sys.stdout.isatty():
            self._stdout, sys.stdout = sys.stdout, _Result(sys.stdout, self)
        self._thread = threading.Thread(
            target=self._draw if terminal else self._log, name="progress", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
        if self._stdout is not None:
            sys.stdout = self._stdout
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Removes the line, for good; from any thread."""
        self._closed.set()
        with self._lock:
            live, self._live = self._live, None
            if live is not None:
                live.stop()

    def _log(self) -> None:
        # Not every 30 s from the start: a short command says nothing.
        while not self._closed.wait(INTERVAL):
            step = latest()
            if step is not None:
                with contextlib.suppress(OSError, ValueError):
                    print(f"siglip-jax: {printable(line(step))}", file=sys.stderr)

    def _draw(self) -> None:
        if self._closed.wait(_PATIENCE):
            return
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        console = Console(stderr=True, highlight=False)
        self._spinner = Spinner("dots")
        live = Live(
            get_renderable=lambda: self._drawn(console.width),
            console=console,
            refresh_per_second=_FRAMES,
            transient=True,
            redirect_stdout=False,
        )
        with self._lock:
            if not self._closed.is_set():
                self._live = live
                live.start(refresh=True)

    def _drawn(self, width: int) -> Any:
        """One line of at most `width` columns."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        step = latest()
        if step is None:
            return Text("")
        what, counted = (Text(printable(part)) for part in parts(step))
        cells: list[Any] = [self._spinner, what]
        room = width - len("x ") - 1
        if step.total:
            bar = min(_BAR, width // 5)
            cells.append(ProgressBar(step.total, min(step.done, step.total), width=bar))
            room -= bar + 1
        # The counts matter most, and change all the time.
        counted.truncate(max(room - _LEAST, 0), overflow="ellipsis")
        what.truncate(max(room - counted.cell_len, 0), overflow="ellipsis")
        grid = Table.grid(padding=(0, 1))
        grid.add_row(*cells, counted)
        return grid


class _Result(io.TextIOBase):
    """A terminal's stdout, which first has the progress removed from that terminal."""

    def __init__(self, stream: Any, progress: Progress) -> None:
        self._stream, self._progress = stream, progress

    def write(self, text: str) -> int:
        self._progress.close()
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        return self._stream.encoding

    @property
    def errors(self) -> Any:
        return self._stream.errors


def line(step: Activity) -> str:
    """An activity in one plain line.

    >>> step = Activity("embedding images", total=2000, unit="images")
    >>> step.advance(500)
    >>> line(step)
    'embedding images: 500 of 2,000'
    """
    return ": ".join(filter(None, parts(step)))


def parts(step: Activity) -> tuple[str, str]:
    """What is done, and how far it is."""
    said = [_counted(step)]
    rate = step.rate.value
    if rate and step.unit == "bytes":
        said.append(f"{rate / 1e6:.3g} MB/s")
    elif rate:
        said.append(f"{rate:.3g}/s")
    left = step.rate.seconds_left(step.total - step.done) if step.total > step.done else None
    if left is not None:
        said.append(f"{clock(left)} left")
    elif not step.total and step.seconds >= 1:
        said.append(clock(step.seconds))
    if step.last is not None:
        said.append(f"{clock(step.last)} last time")
    return step.what, ", ".join(filter(None, [*said, step.said]))


def _counted(step: Activity) -> str:
    if not step.done and not step.total:
        return ""
    if step.unit == "bytes":
        of = f" of {step.total / 1e6:,.1f}" if step.total else ""
        return f"{step.done / 1e6:,.1f}{of} MB"
    of = f" of {step.total:,}" if step.total else ""
    return f"{step.done:,}{of}"


def clock(seconds: float) -> str:
    """
    >>> clock(31.2), clock(3725)
    ('0:31', '1:02:05')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
