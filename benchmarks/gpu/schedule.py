"""Runs parts in processes of their own, so that what one does to itself ends no other."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from declared import READY, TOGETHER, Part

HERE = Path(__file__).parent
# What writing the results and the table takes.
RESERVED = 4.0
QUICK = "--xla_gpu_autotune_level=0"
# While one thread records a command buffer none may load a program, and checks run in threads.
IN_THREADS = "--xla_gpu_enable_command_buffer="


class Running:
    """A part that has been started."""

    def __init__(self, part: Part, command: Sequence[str], log: Path, ends: float) -> None:
        self.part, self.ends, self.started = part, ends, time.time()
        self._log = log.open("w")
        flags = [os.environ.get("XLA_FLAGS", ""), QUICK * part.quick]
        flags += [IN_THREADS] if part.turn == "together" else []
        # A session of its own: what it starts ends with it.
        self.process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            env=os.environ | {"XLA_FLAGS": " ".join(flags).strip()},
        )

    def wait(self) -> str | None:
        """None once it has ended by itself, or why it was ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(max(0.0, self.ends - time.time()))
            self._end()
            return None if code == 0 else f"its process ended with code {code}"
        self._end()
        return f"ended after {time.time() - self.started:.0f} s, its budget"

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()


class Schedule:
    """The parts of one run.

    Args:
      scratch: a folder for rows, logs and gates.
      until: when all must be over, in seconds of the clock `time.time`.
      at_once: parts that run together at a time.
      platform: "gpu", "tpu" (one process has all of it at a time) or "cpu".
      slack: multiplies every budget.
      report: called whenever a part has ended.
      cases: names of the only towers to time; all where there are none.
    """

    def __init__(
        self,
        scratch: Path,
        until: float,
        *,
        at_once: int,
        platform: str,
        rehearse: bool,
        slack: float,
        report: Callable[[], None],
        cases: Sequence[str] = (),
    ) -> None:
        self.report, self.cases = report, cases
        self.scratch, self.until, self.slack = scratch, until - RESERVED, slack
        self.at_once, self.platform, self.rehearse = at_once, platform, rehearse

    def run(self, parts: Sequence[Part]) -> None:
        """Each part in its turn; what became of it is in its rows."""
        if self.platform == "tpu":
            for part in parts:
                # Nothing is prepared beside others, so that compiling is in its own time.
                budget = part.seconds + TOGETHER * (part.turn == "prepared")
                self._ended(self._start(part, budget))
            return
        rest = list(parts)
        if rest and rest[0].turn == "alone":
            first = rest.pop(0)
            self._ended(self._start(first, first.seconds))
        # Where nothing compiles beside them, checks may take all the time that is not others'.
        timed = any(part.turn == "prepared" for part in rest)
        others = sum(part.seconds for part in rest if part.turn == "alone")
        ends = self.until - others
        if timed:
            ends = min(self.until, time.time() + TOGETHER * self.slack)
        prepared = {
            part: self._start(part, self.until - time.time(), prepared_by=ends)
            for part in rest
            if part.turn == "prepared"
        }
        checks = [part for part in rest if part.turn == "together"]
        self._together(checks, ends, budgets=timed)
        self._ready([running for running in prepared.values() if running is not None], ends)
        for part in rest:
            if part in prepared:
                self._open(prepared[part])
            elif part.turn == "alone":
                self._ended(self._start(part, part.seconds))

    def _ready(self, prepared: Sequence[Running], ends: float) -> None:
        """Waits until nothing compiles any more, so that timing is undisturbed."""
        while time.time() < min(self.until, ends + READY * self.slack) and not all(
            running.process.poll() is not None
            or (self.scratch / f"{running.part.name}.ready").exists()
            for running in prepared
        ):
            time.sleep(0.05)

    def _together(self, parts: Sequence[Part], ends: float, budgets: bool) -> None:
        waiting, running = list(parts), []
        while waiting or running:
            while waiting and len(running) < self.at_once:
                part = waiting.pop(0)
                seconds = part.seconds if budgets else ends - time.time()
                running.append(self._start(part, seconds, by=ends))
            done = [r for r in running if r is None or r.process.poll() is not None]
            done += [r for r in running if r is not None and time.time() > r.ends]
            for each in done[:1]:
                running.remove(each)
                self._ended(each)
            time.sleep(0.05)

    def _open(self, running: Running | None) -> None:
        """Lets a prepared part time what it has compiled."""
        if running is None:
            return
        running.ends = min(self.until, time.time() + running.part.seconds * self.slack)
        partial = self.scratch / f"{running.part.name}.partial"
        partial.write_text(str(running.ends))
        partial.rename(self._gate(running.part))
        self._ended(running)

    def _gate(self, part: Part) -> Path:
        return self.scratch / f"{part.name}.gate"

    def _start(
        self,
        part: Part,
        seconds: float,
        *,
        by: float | None = None,
        prepared_by: float | None = None,
    ) -> Running | None:
        ends = min(self.until, by or self.until, time.time() + seconds * self.slack)
        if ends - time.time() < 3:
            self._say(part, "skipped", reason="no time left")
            return None
        print(f"{part.name}: {part.answers}", flush=True)
        rows, log = self.scratch / f"{part.name}.jsonl", self.scratch / f"{part.name}.log"
        command = [sys.executable, str(HERE / "part.py"), part.name, str(rows), str(ends)]
        command += ["--platform", self.platform, *(["--rehearse"] if self.rehearse else [])]
        command += ["--cases", *self.cases] if self.cases else []
        if prepared_by is not None:
            command += ["--prepared-by", str(prepared_by), "--gate", str(self._gate(part))]
        return Running(part, command, log, ends)

    def _ended(self, running: Running | None) -> None:
        if running is None:
            return
        reason = running.wait()
        if reason:
            self._say(running.part, "failed", reason=reason)
        seconds = time.time() - running.started
        self._say(running.part, "ended", seconds=seconds)
        self.report()
        print(f"{running.part.name} ended after {seconds:.0f} s" + (f": {reason}" * bool(reason)))

    def _say(self, part: Part, kind: str, **values: object) -> None:
        row = {"part": part.name, "what": part.name, "kind": kind} | values
        file = self.scratch / f"{part.name}.jsonl"
        # A killed part may have left half a line.
        start = "" if not file.exists() or file.read_text().endswith("\n") else "\n"
        with file.open("a") as opened:
            opened.write(f"{start}{json.dumps(row)}\n")
