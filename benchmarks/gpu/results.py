"""What a part finds, a line of JSON each, on the disk at once: a kill loses nothing."""

import contextlib
import json
import subprocess
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the process that starts parts needs nothing but Python
    from sizes import Scale


class Results:
    """The open file of one part.

    Args:
      part: its name.
      file: a line is appended to it for everything found.
      until: when the part must have ended, in seconds of the clock `time.time`.
      scale: how large everything is.
      platform: "gpu", "tpu" or, in a rehearsal, "cpu".
      prepared_by: when it must have prepared what it times; None where that is up to it.
      gate: a file that appears when it is this part's turn to time something.
    """

    def __init__(
        self,
        part: str,
        file: Path,
        until: float,
        scale: "Scale",
        *,
        platform: str,
        prepared_by: float | None = None,
        gate: Path | None = None,
    ) -> None:
        self.part, self.scale, self.platform = part, scale, platform
        self._file, self._until = file, until
        self._prepared_by, self._gate = prepared_by, gate

    def left(self) -> float:
        """Seconds until the part must have ended."""
        return self._until - time.time()

    def measured(self, what: str, **values: Any) -> None:
        self._write("measured", what, **values)

    def check(self, what: str, value: float, limit: float, **values: Any) -> None:
        """A check of the kind `value <= limit`; NaN never passes."""
        ok = bool(value <= limit)
        self._write("check", what, value=float(value), limit=float(limit), ok=ok, **values)

    def skipped(self, what: str, reason: str) -> None:
        self._write("skipped", what, reason=reason)

    def failed(self, what: str, reason: str) -> None:
        self._write("failed", what, reason=reason)

    @contextlib.contextmanager
    def attempt(self, what: str, needs: float = 0.0) -> Iterator[bool]:
        """A measurement whose failure is written down and ends nothing else.

        Yields whether `needs` seconds are left, if it needs any; if not, that is written down.
        """
        enough = not needs or self.left() >= needs
        if not enough:
            self.skipped(what, f"no time left: it needs about {needs:.0f} s")
        try:
            yield enough
        except Exception as error:
            traceback.print_exc()
            self.failed(what, one_line(error))

    def may_prepare(self, seconds: float) -> bool:
        """Whether there is time to prepare something that takes so long."""
        by = self._until if self._prepared_by is None else self._prepared_by
        return time.time() + seconds < by

    def wait_for_turn(self) -> None:
        """Returns when nothing else runs on the device."""
        if self._gate is not None:
            self._gate.with_suffix(".ready").touch()
        while self._gate is not None and not self._gate.exists():
            time.sleep(0.05)
        if self._gate is not None:
            # The budget of a prepared part begins with its turn.
            self._until = float(self._gate.read_text())

    def _write(self, kind: str, what: str, **values: Any) -> None:
        row = {"part": self.part, "what": what, "kind": kind} | values
        with self._file.open("a") as file:
            file.write(f"{json.dumps(row)}\n")
        print(json.dumps(row), flush=True)


def one_line(error: BaseException) -> str:
    """The type and the first line of an error's message, without the folders of a machine."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"a process did not end within {error.timeout:.0f} s"
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first[:300]}"


def rows_of(file: Path) -> list[dict[str, Any]]:
    """All whole lines of a part's file; the last one of a killed part may be cut."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows
