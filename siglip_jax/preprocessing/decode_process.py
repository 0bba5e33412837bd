"""Processes that decode: what could hold a thread for minutes, or what fills many cores.

A request is a line, with the size of a file and what to do with it in JSON, and its bytes; the
answer a line of JSON and pixels, or what a model takes, in memory that both see. A process does
one after another, and imports no jax. What exceeds its time or memory costs the process and is
an error of that file alone.
"""

import atexit
import contextlib
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np

from siglip_jax.preprocessing.profiles import ImageProfile
from siglip_jax.preprocessing.shared_slot import Slot

SECONDS = 10  # of a processor, for one file
_WALL = 120.0  # seconds; only what waits for something never takes them
_LOOKS = 10.0  # seconds between two looks for processes that take them
_MOST_SHARED = 1 << 22  # bytes of a file in memory that both see, which a process keeps
# Its folders are those of this process: with -m the working directory would come first.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from siglip_jax.preprocessing.decode_server import serve; serve()"
)
# It computes in one thread, and needs none of a library that would start one a core.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Failed(Exception):
    """The file could not be decoded; the message says why."""


class Ended(Failed):
    """The process ended meanwhile, not for the time it took."""


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


class Made(NamedTuple):
    """What a model takes of an image, and the size at which it was decoded."""

    example: Any
    height: int
    width: int


def ask(data: bytes, profile: ImageProfile, *, decode: bool) -> Decoded:
    """What `decode_image` would give of the bytes of a file, or its size alone.

    Raises:
      Failed: as decoding would, or since it took too long.
    """
    with _POOL.process() as process:
        return process.ask(data, profile, decode)


def make(data: bytes, profile: ImageProfile, layout: Any, *, limited: bool) -> Made:
    """What `example` would make of the bytes of a file, in as many processes as threads ask.

    A process that somebody ends is replaced, and the file given to another one once.

    Args:
      layout: `example.Layout` of what is made.
      limited: in a time and memory that are bounded.

    Raises:
      Failed: as that would, or since the process ended, or took too long.
      OSError: if no process can be started.
    """
    try:
        with _POOL.one() as process:
            return process.make(data, profile, layout, limited)
    except Ended:
        with _POOL.one() as process:
            return process.make(data, profile, layout, limited)


def end_idle() -> None:
    """Ends the processes that nobody asks now; the next that are needed are started anew."""
    _POOL.close()


@functools.lru_cache(256)
def _asked(profile: ImageProfile, **facts: Any) -> bytes:
    """What to do, once for many files: Python's lock is held meanwhile, here and for each."""
    return json.dumps(facts | {"profile": dataclasses.asdict(profile)}).encode()


class _Process:
    def __init__(self) -> None:
        self._slot, self.since, self.overdue = Slot(), time.monotonic(), False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[self._slot.file],
                env={**os.environ, **_ENVIRONMENT},
            )
        except OSError:
            self._slot.close()
            raise
        assert self._process.stdin and self._process.stdout
        self._to: Any = self._process.stdin
        self._from: Any = self._process.stdout

    def ask(self, data: bytes, profile: ImageProfile, decode: bool) -> Decoded:
        with self._answered(len(data), data, _asked(profile, decode=decode)) as answer:
            done = Decoded(**answer)
            if decode:
                done.pixels = np.empty((done.height, done.width, 3), np.uint8)
                view: Any = done.pixels.reshape(-1)
                if self._from.readinto(memoryview(view)) != view.size:
                    raise EOFError
        return done

    def make(self, data: bytes, profile: ImageProfile, layout: Any, limited: bool) -> Made:
        # The file too, unless it is large: a pipe takes it in parts, and waits after each.
        shared = len(data) if len(data) <= _MOST_SHARED else 0
        memory = self._slot.bytes(layout.size + shared)
        if shared:
            memory[layout.size :] = np.frombuffer(data, np.uint8)
        facts = {"slot": self._slot.file, "grid": layout.grid, "limited": limited}
        asked = _asked(profile, shared=shared > 0, **facts)
        with self._answered(len(data), b"" if shared else data, asked) as answer:
            return Made(layout.read(memory), **answer)

    @contextlib.contextmanager
    def _answered(
        self, size: int, data: bytes, asked: bytes
    ) -> Generator[dict[str, Any], None, None]:
        try:
            self._to.write(b"%d %s\n" % (size, asked))
            self._to.write(data)
            self._to.flush()
            answer = json.loads(self._from.readline())
            if "error" in answer:
                raise Failed(answer["error"])
            yield answer
        except (OSError, EOFError, ValueError) as error:
            raise self._end() from error

    def _end(self) -> Failed:
        """Why it is no longer there."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self.close()
        code = self._process.returncode
        if self.overdue or code == -signal.SIGPROF:
            return Failed(f"decoding it took more than {SECONDS} seconds and was given up")
        return Ended(f"decoding it ended the process that did (exit code {code})")

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    @property
    def ended(self) -> bool:
        """Whether it is known to have ended: `lives` asks the system."""
        return self._process.returncode is not None

    def give_up(self) -> None:
        self.overdue = True
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):  # what was not yet written is lost
                pipe.close()
        self._slot.close()


class _Pool:
    """As many processes as are asked at a time, kept for the next; of `process` one a processor."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(os.cpu_count() or 1)
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._watched, self._lock = False, threading.Lock()

    @contextlib.contextmanager
    def process(self) -> Generator[_Process, None, None]:
        with self._free, self.one() as process:
            yield process

    @contextlib.contextmanager
    def one(self) -> Generator[_Process, None, None]:
        process = self._taken()
        process.since = time.monotonic()
        self._busy.add(process)
        try:
            yield process
        except Failed:
            raise
        except BaseException:
            process.close()  # its answer has not been read to the end
            raise
        finally:
            self._busy.discard(process)
            if not process.ended:
                self._idle.append(process)

    def _taken(self) -> _Process:
        while True:
            try:
                process = self._idle.pop()
            except IndexError:
                break
            # One may have been ended while nobody asked it.
            if process.lives:
                return process
            process.close()
        with self._lock:
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, name="decode watch", daemon=True).start()
        return _Process()

    def _watch(self) -> None:
        """Ends what has taken too long: a thread a pool, where a timer a file took one each."""
        while True:
            time.sleep(_LOOKS)
            for process in list(self._busy):
                if time.monotonic() - process.since > _WALL:
                    process.give_up()

    def close(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return


_POOL = _Pool()
atexit.register(lambda: _POOL.close())


def _forget() -> None:
    global _POOL
    _POOL = _Pool()


os.register_at_fork(after_in_child=_forget)
