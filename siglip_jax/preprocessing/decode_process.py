"""Processes that decode what could hold a thread for minutes, and are ended if it does.

A request is a line of JSON and the bytes of a file; the answer a line of JSON and pixels. A
process does one after another. What exceeds its time or memory costs the process and is an
error of that file alone.
"""

import atexit
import contextlib
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from siglip_jax.preprocessing.profiles import ImageProfile

SECONDS = 10  # of a processor, for one file
_WALL = 120.0  # seconds; only what waits for something never takes them
_MEMORY = 1 << 29  # bytes beyond what the process has, to read a header
_BYTES_PER_PIXEL = 48
# Its folders are those of this process: with -m the working directory would come first.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from siglip_jax.preprocessing.decode_process import serve; serve()"
)


class Failed(Exception):
    """The file could not be decoded; the message says why."""


@dataclasses.dataclass
class Decoded:
    """What a header says, and pixels (h, w, 3) uint8 where they were asked for.

    Attributes:
      mode: Pillow's.
      turned: it carries an EXIF rotation, which the profile does not apply.
    """

    height: int
    width: int
    mode: str
    turned: bool = False
    pixels: np.ndarray | None = None


def ask(data: bytes, profile: ImageProfile, *, decode: bool) -> Decoded:
    """What `decode_image` would give of the bytes of a file, or its size alone.

    Raises:
      Failed: as decoding would, or since it took too long.
    """
    with _POOL.process() as process:
        return process.ask(data, profile, decode)


class _Process:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin and self._process.stdout
        self._to: Any = self._process.stdin
        self._from: Any = self._process.stdout

    def ask(self, data: bytes, profile: ImageProfile, decode: bool) -> Decoded:
        facts = {"profile": dataclasses.asdict(profile), "size": len(data), "decode": decode}
        timer = threading.Timer(_WALL, self._process.kill)
        timer.start()
        try:
            self._to.write(json.dumps(facts).encode() + b"\n")
            self._to.write(data)
            self._to.flush()
            answer = json.loads(self._from.readline())
            if "error" in answer:
                raise Failed(answer["error"])
            done = Decoded(**answer)
            if decode:
                done.pixels = np.empty((done.height, done.width, 3), np.uint8)
                view: Any = done.pixels.reshape(-1)
                if self._from.readinto(memoryview(view)) != view.size:
                    raise EOFError
        except (OSError, EOFError, ValueError) as error:
            raise Failed(self._end()) from error
        finally:
            timer.cancel()
        return done

    def _end(self) -> str:
        """Why it is no longer there."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self.close()
        code = self._process.returncode
        if code in (-signal.SIGPROF, -signal.SIGKILL):
            return f"decoding it took more than {SECONDS} seconds and was given up"
        return f"decoding it ended the process that did (exit code {code})"

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):  # what was not yet written is lost
                pipe.close()


class _Pool:
    """As many processes as are asked at a time, up to one a processor; kept for the next."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(os.cpu_count() or 1)
        self._idle: list[_Process] = []

    @contextlib.contextmanager
    def process(self) -> Any:
        with self._free:
            process = self._idle.pop() if self._idle else _Process()
            try:
                yield process
            finally:
                if process.lives:
                    self._idle.append(process)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


_POOL = _Pool()
atexit.register(lambda: _POOL.close())


def _forget() -> None:
    global _POOL
    _POOL = _Pool()


os.register_at_fork(after_in_child=_forget)


def serve() -> None:
    """The process: answers requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    read, write = sys.stdin.buffer, sys.stdout.buffer
    while line := read.readline():
        facts = json.loads(line)
        _answer(facts, read.read(facts["size"]), write)


def _answer(facts: dict[str, Any], data: bytes, write: BinaryIO) -> None:
    from siglip_jax.preprocessing.decode import measured, pixels_of

    profile = ImageProfile(**facts["profile"])
    # The signal ends the process.
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        _limit(_MEMORY)
        height, width, mode, turned = measured(data, profile)
        answer: dict[str, Any] = {"height": height, "width": width, "mode": mode, "turned": turned}
        pixels = None
        if facts["decode"]:
            _limit(_MEMORY + _BYTES_PER_PIXEL * height * width)
            pixels = np.ascontiguousarray(pixels_of(data, profile))
            answer |= {"height": pixels.shape[0], "width": pixels.shape[1]}
    except ValueError as error:
        answer, pixels = {"error": " ".join(str(error).split())}, None
    finally:
        _limit(None)
        signal.setitimer(signal.ITIMER_PROF, 0)
    write.write(json.dumps(answer).encode() + b"\n")
    if pixels is not None:
        view: Any = pixels.reshape(-1)
        write.write(memoryview(view))
    write.flush()


def _limit(more: int | None) -> None:
    """Lets this process have so much more memory than it has, or any amount."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if more is not None:
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            more += pages * resource.getpagesize()
        except OSError:  # no Linux
            return
    soft = hard if more is None or 0 <= hard < more else more
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
