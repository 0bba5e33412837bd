"""The process that decodes what `decode_process` asks it for, one file after another."""

import functools
import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.allocator import keep_freed_memory
from siglip_jax.preprocessing.decode import measured, pixels_of
from siglip_jax.preprocessing.decode_process import SECONDS
from siglip_jax.preprocessing.example import Grid, Layout, example
from siglip_jax.preprocessing.pixels import array_of, size_of
from siglip_jax.preprocessing.profiles import ImageProfile
from siglip_jax.preprocessing.shared_slot import Slot

_MEMORY = 1 << 29  # bytes beyond what the process has, to read a header
_BYTES_PER_PIXEL = 48


def serve(seconds: float = SECONDS) -> None:
    """Answers requests until there are no more; each has so much time of a processor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    read, write = sys.stdin.buffer, sys.stdout.buffer
    while line := read.readline():
        size, _, asked = line.partition(b" ")
        facts, profile = _facts(asked)
        shared = facts.get("shared", False)
        data = _shared(int(size), facts, profile) if shared else read.read(int(size))
        answer, pixels = _bounded(facts, data, profile, seconds)
        write.write(json.dumps(answer).encode() + b"\n")
        if pixels is not None:
            view: Any = pixels.reshape(-1)
            write.write(memoryview(view))
        write.flush()


@functools.lru_cache(16)
def _facts(asked: bytes) -> tuple[dict[str, Any], ImageProfile]:
    facts = json.loads(asked)
    facts["grid"] = facts.get("grid") and Grid(*facts["grid"])
    return facts, ImageProfile(**facts.pop("profile"))


def _shared(size: int, facts: dict[str, Any], profile: ImageProfile) -> bytes:
    """The file, behind what is made of it."""
    begin = _layout(profile, facts["grid"]).size
    return _slot(facts["slot"]).bytes(begin + size)[begin:].tobytes()


def _bounded(
    facts: dict[str, Any], data: bytes, profile: ImageProfile, seconds: float
) -> tuple[dict[str, Any], np.ndarray | None]:
    """The answer, and pixels that follow it."""
    limited = facts.get("limited", True)
    try:
        if limited:
            signal.setitimer(signal.ITIMER_PROF, seconds)  # which ends the process
        return _made(facts, data, profile) if "slot" in facts else _asked(facts, data, profile)
    except ValueError as error:
        return {"error": " ".join(str(error).split())}, None
    finally:
        if limited:
            _limit(None)
            signal.setitimer(signal.ITIMER_PROF, 0)


def _asked(facts: dict[str, Any], data: bytes, profile: ImageProfile) -> Any:
    _limit(_MEMORY)
    height, width, mode, turned = measured(data, profile)
    answer: dict[str, Any] = {"height": height, "width": width, "mode": mode, "turned": turned}
    if not facts["decode"]:
        return answer, None
    _limit(_MEMORY + _BYTES_PER_PIXEL * height * width)
    pixels = np.ascontiguousarray(array_of(pixels_of(data, profile)))
    return answer | {"height": pixels.shape[0], "width": pixels.shape[1]}, pixels


def _made(facts: dict[str, Any], data: bytes, profile: ImageProfile) -> Any:
    layout = _layout(profile, facts["grid"])
    memory = _slot(facts["slot"]).bytes(layout.size)
    if facts["limited"]:
        _limit(_MEMORY)
        height, width, *_ = measured(data, profile)
        _limit(_MEMORY + _BYTES_PER_PIXEL * height * width)
    pixels = pixels_of(data, profile)
    layout.write(memory, example(pixels, profile, facts["grid"]))
    height, width = size_of(pixels)
    return {"height": height, "width": width}, None


@functools.cache
def _slot(file: int) -> Slot:
    keep_freed_memory()  # one image is like the next
    return Slot(file)


@functools.lru_cache(16)
def _layout(profile: ImageProfile, grid: Grid | None) -> Layout:
    return Layout(profile, grid)


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
