"""flax's dense layers and embedding, for int8 weights too, and how they multiply bfloat16.

Where a layer's parameters hold a scale beside its kernel (`weights.int8`), the kernel is
int8 and is multiplied in the layer's own dtype, summed in float32, and scaled after the
sum, which scales each output channel exactly once. Without a scale the layer is flax's own.
"""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from siglip_jax.models.activations import platform


def of_any_weights(layer: nn.Module) -> Callable[[jax.Array], jax.Array]:
    """`layer`, or the function that it is of int8 weights, where it has those.

    Args:
      layer: an `nn.Dense`, an `nn.DenseGeneral` over the last axes, or an `nn.Embed`, inside
        the module that it belongs to.
    """
    if layer.has_variable("params", "embedding_scale"):
        return functools.partial(_int8_embed, layer)
    if layer.has_variable("params", "kernel_scale"):
        return functools.partial(_int8_dense, layer)
    return layer


def product_of(dtype: str | None) -> Callable[..., jax.Array] | None:
    """What a dense layer multiplies in `dtype` with; None is `jax.lax.dot_general`.

    XLA for CPUs has kernels that take bfloat16 and give float32. A product that gives bfloat16
    is promoted to float32 before it, and is slower than one of float32. Both sum in float32.

    >>> product_of("bfloat16") is None  # for a device that nobody named
    True
    """
    return _rounded_product if platform() == "cpu" and dtype == "bfloat16" else None


def _rounded_product(
    left: jax.Array, right: jax.Array, dimensions: Any, precision: Any = None, **options: Any
) -> jax.Array:
    """`jax.lax.dot_general` in float32, rounded to the dtype of what it multiplies."""
    options["preferred_element_type"] = jnp.float32
    product = jax.lax.dot_general(left, right, dimensions, precision, **options)
    return product.astype(left.dtype)


def _int8_embed(layer: nn.Module, ids: jax.Array) -> jax.Array:
    rows = jnp.take(layer.get_variable("params", "embedding"), ids, axis=0)
    # Ids outside the vocabulary have a scale of NaN, as in flax they have an embedding.
    return rows * jnp.take(layer.get_variable("params", "embedding_scale"), ids, axis=0)


def _int8_dense(layer: nn.Module, inputs: jax.Array) -> jax.Array:
    def parameter(name: str) -> jax.Array | np.ndarray:
        return layer.get_variable("params", name)

    kernel, scale, bias = map(parameter, ("kernel", "kernel_scale", "bias"))
    dtype: Any = getattr(layer, "dtype", None) or jnp.result_type(inputs, bias)
    summed = kernel.ndim - bias.ndim
    axes = tuple(range(inputs.ndim - summed, inputs.ndim)), tuple(range(summed))
    # int8 values are exact in bfloat16.
    y = jax.lax.dot_general(
        inputs.astype(dtype),
        kernel.astype(dtype),
        (axes, ((), ())),
        preferred_element_type=jnp.float32,
    )
    channels = (1,) * (y.ndim - bias.ndim) + bias.shape
    return (y * scale.reshape(channels) + bias.reshape(channels)).astype(dtype)
