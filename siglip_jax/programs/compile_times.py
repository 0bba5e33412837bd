"""How long a program took to compile, kept for whoever waits for it the next time."""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from siglip_jax.activity import activity
from siglip_jax.weights.staging import staged

_NAME = "compile_seconds.json"
_WORTH = 1.0  # seconds from which on it is kept: what a cache gave at once says nothing
_TOWERS = {"images": "the image tower", "texts": "the text tower", "pairs": "both towers"}
_MOST = 1000  # programs, the latest ones


@contextlib.contextmanager
def compiling(what: str, *facts: Any) -> Iterator[None]:
    """Compiles `what` in the block, and says so; how long it took last time, too.

    Args:
      what: for a person, such as "the image tower for 32 images".
      facts: what else decides how long it takes, with a `repr` that says all of it.

    >>> from siglip_jax.activity import latest
    >>> with compiling("the text tower"):
    ...     latest().what
    'compiling the text tower'
    """
    key = hashlib.sha256(repr((what, *facts)).encode()).hexdigest()[:16]
    begin = time.monotonic()
    with activity(f"compiling {what}", last=_read().get(key)):
        yield
    seconds = time.monotonic() - begin
    if seconds >= _WORTH:
        _keep(key, seconds)


def compiling_tower(program: Any, what: str, batch: int) -> contextlib.AbstractContextManager[None]:
    """`compiling` a tower of a `Program` or `ClassProgram`; of pairs both towers.

    Args:
      what: "images", "texts" or "pairs".
    """
    model, devices = program.model, program.mesh.devices
    return compiling(
        f"{_TOWERS[what]}, batches of {batch:,}",
        type(program).__name__,
        model.config,
        model.execution,
        devices.shape,
        devices.flat[0].device_kind,
    )


def facts_folder() -> Path | None:
    """The folder of what is known of compiled programs, beside jax's cache of them; None if that
    is nowhere, or in a bucket."""
    import jax

    folder: str | None = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009 - set at run time
    return None if folder is None or "://" in folder else Path(folder, "siglip_jax")


def _file() -> Path | None:
    folder = facts_folder()
    return None if folder is None else folder / _NAME


def _read() -> dict[str, float]:
    file = _file()
    try:
        there = json.loads(file.read_text("utf-8")) if file is not None else {}
    except (OSError, ValueError):
        return {}
    if not isinstance(there, dict):
        return {}
    return {key: s for key, s in there.items() if isinstance(s, int | float)}


def _keep(key: str, seconds: float) -> None:
    file = _file()
    if file is None:
        return
    there = _read()
    there.pop(key, None)
    there[key] = round(seconds, 1)
    kept = dict(list(there.items())[-_MOST:])
    # Of two processes that end together one is forgotten, which costs nothing.
    with contextlib.suppress(OSError, ValueError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with staged(file) as partial:
            partial.write_text(json.dumps(kept), "utf-8")
