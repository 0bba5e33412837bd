"""Processes that this one starts to do a part of its work, and keeps for the next part.

A request and an answer are a line each, with bytes behind it where the line says so.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar

WALL = 120.0  # seconds of a request; only what waits for something never takes them
LOOKS = 10.0  # seconds between two looks for helpers that take them
# It computes in one thread, and needs none of a library that would start one a core; the
# accelerator is the parent's.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_ENVIRONMENT |= {"JAX_PLATFORMS": "cpu"}


class Helper:
    """One such process, asked by one thread at a time.

    Args:
      program: Python; its folders are those of this process: with -m the working directory
        would come first.
      files: descriptors that it has, too.

    Attributes:
      until: on the clock `time.monotonic`, when it is given up.
      overdue: it was.

    Raises:
      OSError: if it cannot be started.
    """

    def __init__(self, program: str, files: Sequence[int] = ()) -> None:
        self.until, self.overdue = float("inf"), False
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = sys.argv[1:]; {program}", *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=files,
            env={**os.environ, **_ENVIRONMENT},
        )
        assert self._process.stdin and self._process.stdout
        self._to: Any = self._process.stdin
        self.answers: Any = self._process.stdout

    def send(self, *parts: bytes) -> None:
        """Raises OSError if it has ended."""
        for part in parts:
            self._to.write(part)
        self._to.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    @property
    def ended(self) -> bool:
        """Whether it is known to have ended: `lives` asks the system."""
        return self._process.returncode is not None

    def end(self) -> int:
        """Waits a moment for an end that has begun; the exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self.close()
        return self._process.returncode

    def give_up(self) -> None:
        self.overdue = True
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._to, self.answers):
            with contextlib.suppress(OSError):  # what was not yet written is lost
                pipe.close()


AnyHelper = TypeVar("AnyHelper", bound=Helper)


class Helpers(Generic[AnyHelper]):
    """As many as are asked at a time, kept for the next.

    Args:
      start: makes one.
      kept: what may be raised while one is asked that has not cost it.
    """

    def __init__(self, start: Callable[[], AnyHelper], kept: type[Exception]) -> None:
        self._start, self._kept = start, kept
        self.idle: list[AnyHelper] = []
        self.busy: set[AnyHelper] = set()
        self._lock = threading.Lock()
        self._over: threading.Event | None = None  # of the thread that watches

    @contextlib.contextmanager
    def one(self, requests: int = 1) -> Generator[AnyHelper, None, None]:
        """One for this thread, which is given up if `requests` take longer than they may.

        Raises:
          OSError: if none can be started.
        """
        helper = self._taken()
        helper.until = time.monotonic() + WALL * requests
        self.busy.add(helper)
        try:
            yield helper
        except self._kept:
            raise
        except BaseException:
            helper.close()  # its answer has not been read to the end
            raise
        finally:
            self.busy.discard(helper)
            if not helper.ended:
                self.idle.append(helper)

    def close(self) -> None:
        """Ends those that nobody asks now, and the thread that watches; another begins anew."""
        with self._lock:
            if self._over is not None:
                self._over.set()
                self._over = None
        while True:
            try:
                self.idle.pop().close()
            except IndexError:
                return

    def _taken(self) -> AnyHelper:
        while True:
            try:
                helper = self.idle.pop()
            except IndexError:
                break
            # One may have been ended while nobody asked it.
            if helper.lives:
                return helper
            helper.close()
        with self._lock:
            if self._over is None:
                self._over = threading.Event()
                watch = threading.Thread(target=self._watch, args=(self._over,), name="helpers")
                watch.daemon = True
                watch.start()
        return self._start()

    def _watch(self, over: threading.Event) -> None:
        """Ends what has taken too long: a thread for all, where a timer a request took one each."""
        while not over.wait(LOOKS):
            for helper in list(self.busy):
                if time.monotonic() > helper.until:
                    helper.give_up()
