"""The process that decodes what `decode_process` asks it for, one file after another."""

import functools
import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.preprocessing.decode import measured, pixels_of
from siglip_jax.preprocessing.decode_process import SECONDS
from siglip_jax.preprocessing.pixels import array_of
from siglip_jax.preprocessing.profiles import ImageProfile

_MEMORY = 1 << 29  # bytes beyond what the process has, to read a header
_BYTES_PER_PIXEL = 48


def serve(seconds: float = SECONDS) -> None:
    """Answers requests until there are no more; each has so much time of a processor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    read, write = sys.stdin.buffer, sys.stdout.buffer
    while line := read.readline():
        size, _, asked = line.partition(b" ")
        answer, pixels = _bounded(*_facts(asked), read.read(int(size)), seconds)
        write.write(json.dumps(answer).encode() + b"\n")
        if pixels is not None:
            view: Any = pixels.reshape(-1)
            write.write(memoryview(view))
        write.flush()


@functools.lru_cache(16)
def _facts(asked: bytes) -> tuple[bool, ImageProfile]:
    facts = json.loads(asked)
    return facts["decode"], ImageProfile(**facts["profile"])


def _bounded(
    decode: bool, profile: ImageProfile, data: bytes, seconds: float
) -> tuple[dict[str, Any], np.ndarray | None]:
    """The answer, and pixels that follow it."""
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # which ends the process
        return _asked(decode, profile, data)
    except ValueError as error:
        return {"error": " ".join(str(error).split())}, None
    finally:
        _limit(None)
        signal.setitimer(signal.ITIMER_PROF, 0)


def _asked(decode: bool, profile: ImageProfile, data: bytes) -> Any:
    _limit(_MEMORY)
    height, width, mode, turned = measured(data, profile)
    answer: dict[str, Any] = {"height": height, "width": width, "mode": mode, "turned": turned}
    if not decode:
        return answer, None
    _limit(_MEMORY + _BYTES_PER_PIXEL * height * width)
    pixels = np.ascontiguousarray(array_of(pixels_of(data, profile)))
    return answer | {"height": pixels.shape[0], "width": pixels.shape[1]}, pixels


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
