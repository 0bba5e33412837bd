"""Where activations lie: split over devices by example, and by nothing else.

XLA chooses the layout of activations. Given weights that are split (FSDP) it may
split the width of activations, rather than gather the weights of one layer at a
time; so the code that compiles a model for a mesh says here how batches are split, and
the blocks hold their activations to it. Where weights are whole on every device
there is nothing to hold, and each constraint would keep XLA from fusing what is
on its two sides (on a v6e 15% more temporary memory for B/16).
"""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

import contextlib
import contextvars
import functools
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import jax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

_layout: contextvars.ContextVar[tuple[NamedSharding, bool] | None] = contextvars.ContextVar(
    "batch_layout", default=None
)
_target: contextvars.ContextVar[str | None] = contextvars.ContextVar("target", default=None)
_in_bytes: contextvars.ContextVar[bool] = contextvars.ContextVar("in_bytes", default=False)


@contextlib.contextmanager
def batches_split_by(sharding: NamedSharding, *, hold: bool = True) -> Generator[None, None, None]:
    """While a model is traced inside this, its activations are split by `sharding`.

    Args:
      sharding: names mesh axes for the first dimension only.
      hold: whether blocks hold activations to it; needed where weights are split.
    """
    token = _layout.set((sharding, hold))
    try:
        yield
    finally:
        _layout.reset(token)


def split_over_batch(x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """`x`, laid out as `batches_split_by` says; `x` itself outside of it."""
    sharding, hold = _layout.get() or (None, False)
    return jax.lax.with_sharding_constraint(x, sharding) if hold else x


def weights_are_split() -> bool:
    """Whether `batches_split_by` holds activations, which it does where weights are split."""
    return (_layout.get() or (None, False))[1]


@contextlib.contextmanager
def traced_for(platform: str) -> Generator[None, None, None]:
    """While a model is traced inside this, it is for a `platform`, and not for the devices here.

    Args:
      platform: as jax calls it, "cuda" and "rocm" included.
    """
    token = _target.set("gpu" if platform in ("cuda", "rocm") else platform)
    try:
        yield
    finally:
        _target.reset(token)


def platform() -> str | None:
    """What a model is traced for, such as "tpu"; None where nobody said."""
    here = device()
    return here.platform if here is not None else _target.get()


def device() -> Any | None:
    """One of the devices of `batches_split_by`; None outside of it and inside `traced_for`."""
    layout = _layout.get()
    if layout is None or _target.get() is not None:
        return None
    return next(iter(cast(set[Any], layout[0].device_set)))


@contextlib.contextmanager
def int8_where_fast(allowed: bool) -> Generator[None, None, None]:
    """While a model is traced inside this, int8 weights may be multiplied with 8 bits.

    Only a scorer's functions are: what is rounded has no gradient.
    """
    token = _in_bytes.set(allowed)
    try:
        yield
    finally:
        _in_bytes.reset(token)


def takes_int8() -> bool:
    """Whether int8 weights are multiplied with activations that are rounded to 8 bits.

    That is where `int8_where_fast` allows it, on a CPU of this machine that is fast at it.
    """
    here = device()
    return _in_bytes.get() and here is not None and here.platform == "cpu" and multiplies_bytes()


@functools.cache
def multiplies_bytes() -> bool:
    """Whether the processor has instructions for which XLA has a kernel of uint8 by int8.

    Elsewhere XLA would run a loop without vectors.
    """
    facts = Path("/proc/cpuinfo")
    words = set(facts.read_text().split()) if facts.exists() else set[str]()
    return bool(words & {"avx512_vnni", "amx_int8"})
