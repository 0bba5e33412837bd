"""Compiled programs in files, for a start without tracing.

jax's cache of compiled programs is asked with a program's StableHLO, for which the model has
to be traced first: a third of the time until a first score. What lies here is asked with all
that decides what is traced and how it is compiled: configuration, execution, shapes, the text
of this package, versions, jax's settings, the processor. It lies in the folder `siglip_jax` of
jax's own cache, and may be deleted at any time. It is code that is run: what other users could
have written is not read.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from siglip_jax import config as configs
from siglip_jax.config import Execution, NaFlexVision, Siglip
from siglip_jax.preprocessing.profiles import PixelRange
from siglip_jax.private_folder import make_private, opened, why_shared
from siglip_jax.programs.executable_file import from_bytes, to_bytes
from siglip_jax.weights.layout import stored_parameters
from siglip_jax.weights.staging import staged

Compiled = Callable[..., Any]
ShapeDtype = tuple[tuple[int, ...], str]
_ahead: dict[str, Future[Compiled | None]] = {}


def program_key(
    task: str,
    config: Siglip,
    execution: Execution,
    pixels: PixelRange,
    arrays: Iterable[ShapeDtype],
) -> str:
    """The name of a program's file.

    Args:
      task: which function it is of.
      pixels: what uint8 0 and 255 become.
      arrays: shape and dtype of each of its arguments: the weights in the order of their
        names, then the inputs.
    """
    facts = [
        task,
        configs.to_dict(config),
        [(name, getattr(execution, name)) for name in execution.__dataclass_fields__],
        list(pixels),
        [[list(shape), str(dtype)] for shape, dtype in arrays],
        surroundings(),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def surroundings() -> str:
    """Digest of what else decides how a program is traced and compiled."""
    import jax

    facts = [
        _installed(),
        {name: repr(value) for name, value in jax.config.values.items()},
        {name: os.environ[name] for name in os.environ if name.startswith(("XLA_", "FLAX_"))},
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@functools.cache
def _installed() -> list[Any]:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    processor = Path("/proc/cpuinfo")
    lines = processor.read_text().splitlines() if processor.exists() else []
    return [
        digest.hexdigest(),
        sys.version,
        [importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")],
        platform.machine(),
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}),
        os.cpu_count(),
    ]


def read_program(key: str, device: Any) -> Compiled | None:
    """The program of `key`, loaded onto `device`; None if it is not kept, or no longer loads."""
    ahead = _ahead.pop(key, None)
    return _read(key, device) if ahead is None else ahead.result()


def keep_program(key: str, compiled: Any, device: Any, arguments: tuple[Any, ...]) -> None:
    """Keeps what `jax.jit(...).lower(...).compile()` gave, if it can be; run with `arguments`."""
    folder = _folder()
    if folder is None or not _private(folder):
        return
    import jax

    # jax says of the format of executables only that it is experimental, and not every
    # program can be kept: without a file, it is compiled again.
    try:
        data = to_bytes(key, compiled)
        # An executable that XLA deserialized and serialized again loads but does not run.
        jax.block_until_ready(from_bytes(key, data, device)(*arguments))
        with staged(folder / key) as partial:
            partial.touch(mode=0o600)
            partial.write_bytes(data)
    except Exception:
        return


def read_ahead(
    config: Siglip,
    execution: Execution,
    pixels: PixelRange,
    batches: Mapping[str, int],
) -> None:
    """Starts to read, in a thread, the programs that a `Program` on one device will ask for.

    Args:
      batches: "images" and "texts" to their batch sizes.
    """
    if isinstance(config.vision, NaFlexVision) or _folder() is None:
        return
    weights = [array for _, array in sorted(stored_parameters(config, execution).items())]
    vision, text = config.vision, config.text
    shapes: dict[str, ShapeDtype] = {}
    if vision is not None:
        shapes["images"] = (vision.res, vision.res, 3), "uint8"
    if text is not None:
        shapes["texts"] = (text.length,), "int32"
    reader = ThreadPoolExecutor(1, "programs")
    for task in shapes.keys() & batches.keys():
        batch, (shape, dtype) = batches[task], shapes[task]
        arrays = [*weights, ((batch, *shape), dtype)]
        key = program_key(task, config, execution, pixels, arrays)
        _ahead[key] = reader.submit(_read_alone, key)
    reader.shutdown(wait=False)


def _read_alone(key: str) -> Compiled | None:
    import jax

    try:
        devices = jax.devices()
    except Exception:  # the next call that asks for devices says what is wrong with them
        return None
    return _read(key, devices[0]) if len(devices) == 1 else None


def _folder() -> Path | None:
    import jax

    folder: str | None = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009 - set at run time
    # jax takes addresses of buckets too.
    return None if folder is None or "://" in folder else Path(folder, "siglip_jax")


def _private(folder: Path) -> bool:
    try:
        shared = make_private(folder)
    except OSError:
        return False
    if shared:
        _ignored(shared)
    return not shared


def _ignored(shared: str) -> None:
    warnings.warn(f"compiled programs are not read: {shared}", stacklevel=2)


def _read(key: str, device: Any) -> Compiled | None:
    folder = _folder()
    if folder is None or not (folder / key).exists():
        return None
    try:
        with opened(folder) as inside, opened(key, inside) as handle:
            shared = why_shared(folder, inside) or why_shared(folder / key, handle)
            data = b"" if shared else _content(handle)
    except OSError:  # it went, or is not for us
        return None
    if shared:
        _ignored(shared)
        return None
    try:
        return from_bytes(key, data, device)
    except Exception:  # a damaged file costs a compilation, and is written anew
        return None


def _content(handle: int) -> bytes:
    with os.fdopen(os.dup(handle), "rb") as file:
        return file.read()
