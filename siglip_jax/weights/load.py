"""A checkpoint onto devices and back, one tensor at a time, strictly.

Nothing but the tensor at hand is ever in host memory twice: it is read,
converted, put on its device and dropped before the next is read.
"""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from siglip_jax.config import Siglip, Vision
from siglip_jax.weights.big_vision import open_big_vision
from siglip_jax.weights.int8 import stored
from siglip_jax.weights.posemb import resample_posemb
from siglip_jax.weights.reader import Header, Reader, empty_aligned
from siglip_jax.weights.routes import Route, strict_routes
from siglip_jax.weights.tree import insert

_NAMED = 3  # tensors that a message names
# Bits of the exponent, all of which are set in NaN and infinity.
_EXPONENT = {"float16": 0x7C00, "bfloat16": 0x7F80}

Sharder = Callable[[str, tuple[int, ...]], Any]  # a `Sharding` or a `jax.Device`


def load_params(
    source: str | Path | Reader,
    config: Siglip,
    *,
    scan_image: bool = False,
    scan_text: bool = False,
    resize_posemb: bool = False,
    dtype: str | np.dtype | None = None,
    weights: str | None = None,
    sharding: Sharder | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The parameters of a big_vision checkpoint, as the models of this package take them.

    Args:
      source: a `.npz` file, a tensorstore folder, a part of one
        (`file.npz:img`), or an open reader of either, which is left open.
      config: the architecture; every parameter of it must be in the checkpoint
        and nothing else may be.
      scan_image, scan_text: the form of each tower that the caller wants; the
        checkpoint may have either.
      resize_posemb: allow the image position embedding to be resampled to the
        grid of `config`, as big_vision does.
      dtype: of every parameter, such as "bfloat16"; None leaves each as stored.
      weights: `Execution.weights`: as `dtype`, but "int8" too, and what must not be
        coarse stays as it is (`weights.int8`).
      sharding: where a parameter goes, given its name in the whole model and
        its shape: a sharding or a device. None means jax's default device.
      progress: called with bytes read so far and bytes in all.

    Returns:
      Nested dictionaries of arrays. Of a part, that part's own tree: what
      `file.npz:img` holds is what the image tower takes.

    Raises:
      ValueError: if the checkpoint cannot be read or does not fit; everything
        that does not fit is in one message.
    """
    opened = isinstance(source, str | os.PathLike)
    with open_big_vision(source) if opened else contextlib.nullcontext(source) as reader:
        inside = f"{reader.subtree}/" if reader.subtree else ""
        found = {inside + name: header for name, header in reader.shapes.items()}
        routes = strict_routes(
            found,
            config,
            path=reader.path,
            subtree=reader.subtree,
            scan_image=scan_image,
            scan_text=scan_text,
            resize_posemb=resize_posemb,
            convert=dtype is not None or weights is not None,
        )
        # The largest first: a tensor is in host memory twice for a moment where the device
        # is the host, and that moment is cheapest while little else has been loaded.
        routes.sort(key=lambda route: _nbytes(route, found), reverse=True)
        total = sum(_nbytes(route, found) for route in routes)
        done = 0
        tree: dict[str, Any] = {}
        broken: list[str] = []
        for route in routes:
            host = _read(route, reader, inside, config, found)
            layers = host if route.how == "unstack" else (host,)
            for target, array in zip(route.targets, layers, strict=True):
                if bad := not_finite(array):
                    broken.append(f"{target} ({bad:,} of {array.size:,} values)")
                    continue
                if dtype is not None:
                    array = array.astype(dtype, copy=False)
                for name, part in stored(target, array, weights).items():
                    where = sharding(name, part.shape) if sharding else None
                    insert(tree, name.removeprefix(inside), _put(part, where))
            host = layers = array = part = None  # before the next is read
            done += _nbytes(route, found)
            if progress is not None:
                progress(done, total)
    if broken:
        some = ", ".join(broken[:_NAMED]) + (", ..." if len(broken) > _NAMED else "")
        raise ValueError(
            f"{reader.path} holds NaN or infinity in {len(broken)} tensors: {some}; the file is "
            "damaged, or its training diverged: take another checkpoint"
        )
    return tree


def not_finite(array: np.ndarray) -> int:
    """How many values of a tensor are NaN or infinite; nearly as fast as it can be read.

    >>> not_finite(np.float32([1, np.inf, np.nan])), not_finite(np.float16([1, 65504]))
    (2, 0)
    """
    if array.dtype.kind in "iub":
        return 0
    if array.dtype.itemsize == 2 and array.dtype.name in _EXPONENT:
        # numpy converts each value of these to look at it; their exponent says it, too.
        mask = np.uint16(_EXPONENT[array.dtype.name])
        return int(np.count_nonzero((array.view(np.uint16) & mask) == mask))
    if array.dtype == np.float32 and array.flags.c_contiguous:
        flat = array.reshape(-1)
        with np.errstate(all="ignore"):
            if np.isfinite(np.dot(flat, flat)):
                return 0
    return int(np.count_nonzero(~np.isfinite(array.astype(np.float64))))


def _nbytes(route: Route, found: Mapping[str, Header]) -> int:
    return sum(found[name].nbytes for name in route.sources)


def _read(
    route: Route, reader: Reader, inside: str, config: Siglip, found: Mapping[str, Header]
) -> np.ndarray:
    names = [name.removeprefix(inside) for name in route.sources]
    if route.how == "stack":
        headers = [found[name] for name in route.sources]
        # Layers may differ in dtype; the common one loses nothing.
        common = np.result_type(*(header.dtype for header in headers))
        stacked = empty_aligned((len(names), *headers[0].shape), common)
        for layer, name in enumerate(names):
            stacked[layer] = reader.read(name)
        return stacked
    first = reader.read(names[0])
    if route.how in ("add", "resample"):
        # What is computed here is as exact as what the towers compute: at least float32.
        first = first.astype(np.result_type(first.dtype, np.float32), copy=False)
    if route.how == "add":
        return first + reader.read(names[1])
    if route.how == "resample":
        assert isinstance(config.vision, Vision)  # only a fixed grid is resampled
        return resample_posemb(first, config.vision.grid**2)
    return first


def _put(array: np.ndarray, where: Any) -> jax.Array:
    if isinstance(where, Sharding) and not where.is_fully_addressable:
        # Spans several processes: each has the whole tensor and gives its own pieces.
        leaf = jax.make_array_from_callback(array.shape, where, lambda index: array[index])
    else:
        leaf = jax.device_put(array, where)
    # Transfers are asynchronous: without this, host copies would queue up.
    return leaf.block_until_ready()
