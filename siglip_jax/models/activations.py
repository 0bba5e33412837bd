"""Where activations lie: split over devices by example, and by nothing else.

XLA chooses the layout of activations. Given weights that are split (FSDP) it may
split the width of activations, rather than gather the weights of one layer at a
time; so whoever compiles a model for a mesh says here how batches are split, and
the blocks hold their activations to it.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

_sharding: contextvars.ContextVar[NamedSharding | None] = contextvars.ContextVar(
    "batch_sharding", default=None
)


@contextlib.contextmanager
def batches_split_by(sharding: NamedSharding) -> Iterator[None]:
    """While a model is traced inside this, its activations are split by `sharding`.

    `sharding` names mesh axes for the first dimension only.
    """
    token = _sharding.set(sharding)
    try:
        yield
    finally:
        _sharding.reset(token)


def split_over_batch(x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """`x`, laid out as `batches_split_by` says; `x` itself outside of it."""
    sharding = _sharding.get()
    return x if sharding is None else jax.lax.with_sharding_constraint(x, sharding)
