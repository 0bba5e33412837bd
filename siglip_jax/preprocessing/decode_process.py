"""Processes that decode what could hold a thread for minutes.

A request is a line, with the size of a file and what to do with it in JSON, and its bytes; the
answer a line of JSON, and pixels. A process does one after another, and imports no jax. What
exceeds its time or memory costs the process and is an error of that file alone.
"""

import atexit
import contextlib
import dataclasses
import functools
import json
import os
import signal
import threading
from collections.abc import Generator
from typing import Any

import numpy as np

from siglip_jax.helper import Helper, Helpers
from siglip_jax.preprocessing.profiles import ImageProfile

SECONDS = 10  # of a processor, for one file
_PROGRAM = "from siglip_jax.preprocessing.decode_server import serve; serve()"


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


def ask(data: bytes, profile: ImageProfile, *, decode: bool) -> Decoded:
    """What `decode_image` would give of the bytes of a file, or its size alone.

    Raises:
      Failed: as decoding would, or since it took too long.
    """
    with _POOL.process() as process:
        return process.ask(data, profile, decode)


def end_of(process: Helper) -> Failed:
    """Why a process that decodes is no longer there."""
    code = process.end()
    if process.overdue or code == -signal.SIGPROF:
        return Failed(f"decoding it took more than {SECONDS} seconds and was given up")
    return Ended(f"decoding it ended the process that did (exit code {code})")


@functools.lru_cache(256)
def _asked(profile: ImageProfile, decode: bool) -> bytes:
    """What to do, once for many files."""
    return json.dumps({"decode": decode, "profile": dataclasses.asdict(profile)}).encode()


class _Process(Helper):
    def __init__(self) -> None:
        super().__init__(_PROGRAM)

    def ask(self, data: bytes, profile: ImageProfile, decode: bool) -> Decoded:
        try:
            self.send(b"%d %s\n" % (len(data), _asked(profile, decode)), data)
            answer: dict[str, Any] = json.loads(self.answers.readline())
            if "error" in answer:
                raise Failed(answer["error"])
            done = Decoded(**answer)
            if decode:
                done.pixels = np.empty((done.height, done.width, 3), np.uint8)
                view: Any = done.pixels.reshape(-1)
                if self.answers.readinto(memoryview(view)) != view.size:
                    raise EOFError
        except (OSError, EOFError, ValueError) as error:
            raise end_of(self) from error
        return done


class _Pool(Helpers[_Process]):
    """At most one a processor."""

    def __init__(self) -> None:
        super().__init__(_Process, kept=Failed)
        self._free = threading.Semaphore(os.cpu_count() or 1)

    @contextlib.contextmanager
    def process(self) -> Generator[_Process, None, None]:
        with self._free, self.one() as process:
            yield process


_POOL = _Pool()
atexit.register(lambda: _POOL.close())


def _forget() -> None:
    global _POOL
    _POOL = _Pool()


os.register_at_fork(after_in_child=_forget)
