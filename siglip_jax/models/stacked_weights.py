"""A scan over layers that converts the float32 weights of one layer at a time.

XLA for TPUs gives what is only ever used in bfloat16 that dtype as early as it can: the weights
of all layers before the loop, of which it then keeps a copy of half their size. It does so
through slices and barriers, and through matmuls that are given float32, but not through
arithmetic of float32: here each layer's kernels are multiplied by a one that XLA cannot know.
"""

# jax annotates its functions in part.
# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from siglip_jax.models.activations import platform, weights_are_split
from siglip_jax.weights.tree import flatten, nested


def converts_early(dtype: str) -> bool:
    """Whether the weights of a scan that computes in `dtype` would be converted before it.

    >>> converts_early("bfloat16")  # for a device that nobody named
    False
    """
    # Of split weights a chip has a part, and what is gathered should be bfloat16.
    return platform() == "tpu" and dtype == "bfloat16" and not weights_are_split()


def scan_layers(step: Callable[[Any, jax.Array], Any], stacked: Any, x: jax.Array) -> Any:
    """`jax.lax.scan` of `step` over layers.

    Args:
      step: from the weights of one layer and an array to such an array and more outputs.
      stacked: a tree of weights, whose first axis is the layer.
      x: what the first layer is given.

    Returns:
      What the last layer gives, and the other outputs of all layers, stacked.

    >>> stacked = {"kernel": jnp.array([2.0, 5.0])}
    >>> scan_layers(lambda w, x: (x * w["kernel"], x), stacked, jnp.float32(1))
    (Array(10., dtype=float32), Array([1., 2.], dtype=float32))
    """

    def one(x: jax.Array, layer: tuple[jax.Array, Any]) -> Any:
        index, weights = layer
        factor = (index >= 0).astype(jnp.float32)
        held = {
            name: leaf * factor if name.endswith("kernel") and leaf.dtype == jnp.float32 else leaf
            for name, leaf in flatten(weights).items()
        }
        return step(nested(held), x)

    depth = jax.tree.leaves(stacked)[0].shape[0]
    return jax.lax.scan(one, x, (jnp.arange(depth), stacked))
