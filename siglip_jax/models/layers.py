"""flax's dense layers and embedding, for int8 weights too, and how they multiply bfloat16.

Where a layer's parameters hold a scale beside its kernel (`weights.int8`), the kernel is
int8 and is multiplied in the layer's own dtype, summed in float32, and scaled after the
sum, which scales each output channel exactly once. On a CPU with instructions for it the
inputs are rounded to 8 bits too (`activations.takes_int8`), with a scale and a minimum for
every row, and the sums are integers. Without a scale the layer is flax's own.
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

from siglip_jax.models.activations import platform, takes_int8

# A dtype of each side is what XLA's kernels for 8 bits take. Without an algorithm that is named,
# jax converts both sides to int32 for CPUs.
_AS_THEY_ARE = jax.lax.DotAlgorithmPreset.DEFAULT
# The sum of so many products of uint8 and int8 fits int32.
_MOST_BYTES = (2**31 - 1) // (255 * 127)


def of_any_weights(layer: nn.Module, *, rounded: bool = True) -> Callable[[jax.Array], jax.Array]:
    """`layer`, or the function that it is of int8 weights, where it has those.

    Args:
      layer: an `nn.Dense`, an `nn.DenseGeneral` over the last axes, or an `nn.Embed`, inside
        the module that it belongs to.
      rounded: as of `product_of`.
    """
    if layer.has_variable("params", "embedding_scale"):
        return functools.partial(_int8_embed, layer)
    if layer.has_variable("params", "kernel_scale"):
        return functools.partial(_int8_dense, layer, rounded)
    return layer


def product_of(dtype: str | None, *, rounded: bool = True) -> Callable[..., jax.Array] | None:
    """What a dense layer multiplies in `dtype` with; None is `jax.lax.dot_general`.

    XLA for CPUs has kernels that take bfloat16 and give float32. A product that gives bfloat16
    is promoted to float32 before it, and is slower than one of float32. Both sum in float32.

    Args:
      dtype: of the layer.
      rounded: whether the result is rounded to `dtype` on a CPU too. What a GELU takes is not:
        in bfloat16 it would take three times as long there as in float32.

    >>> product_of("bfloat16") is None  # for a device that nobody named
    True
    """
    if platform() != "cpu" or dtype != "bfloat16":
        return None
    return _rounded_product if rounded else _wide_product


def _wide_product(
    left: jax.Array, right: jax.Array, dimensions: Any, precision: Any = None, **options: Any
) -> jax.Array:
    """`jax.lax.dot_general` that gives float32."""
    options["preferred_element_type"] = jnp.float32
    return jax.lax.dot_general(left, right, dimensions, precision, **options)


def _rounded_product(left: jax.Array, *others: Any, **options: Any) -> jax.Array:
    """The same, rounded to the dtype of what it multiplies."""
    return _wide_product(left, *others, **options).astype(left.dtype)


def _int8_embed(layer: nn.Module, ids: jax.Array) -> jax.Array:
    rows = jnp.take(layer.get_variable("params", "embedding"), ids, axis=0)
    # Ids outside the vocabulary have a scale of NaN, as in flax they have an embedding.
    return rows * jnp.take(layer.get_variable("params", "embedding_scale"), ids, axis=0)


def _int8_dense(layer: nn.Module, rounded: bool, inputs: jax.Array) -> jax.Array:
    def parameter(name: str) -> jax.Array | np.ndarray:
        return layer.get_variable("params", name)

    kernel, scale, bias = map(parameter, ("kernel", "kernel_scale", "bias"))
    dtype: Any = getattr(layer, "dtype", None) or jnp.result_type(inputs, bias)
    summed = kernel.ndim - bias.ndim
    if takes_int8() and np.prod(kernel.shape[:summed]) <= _MOST_BYTES:
        y = _product_of_bytes(inputs, kernel, summed)
    else:
        # int8 values are exact in bfloat16.
        y = jax.lax.dot_general(
            inputs.astype(dtype),
            kernel.astype(dtype),
            (_summed_axes(inputs, summed), ((), ())),
            preferred_element_type=jnp.float32,
        )
    channels = (1,) * (y.ndim - bias.ndim) + bias.shape
    y = y * scale.reshape(channels) + bias.reshape(channels)
    return y.astype(dtype) if rounded or platform() != "cpu" else y


def _product_of_bytes(inputs: jax.Array, kernel: jax.Array | np.ndarray, summed: int) -> jax.Array:
    """Inputs in 8 bits times int8, in float32: `low + step · uint8` stands for each row of inputs.

    Rows are what lies along the last `summed` axes, over which the product sums. One more row
    of ones gives the sums of the kernel, by which `low` is multiplied.
    """
    axes = _summed_axes(inputs, summed)
    inputs = inputs.astype(jnp.float32)
    low, high = inputs.min(axes[0], keepdims=True), inputs.max(axes[0], keepdims=True)
    width = high - low
    # A row of equal numbers is `low`, and one with a number that is not finite stays so.
    steps = jnp.where(width == 0, 0, 255 / width)
    values = jnp.round((inputs - low) * steps).astype(jnp.uint8)
    rows = inputs.ndim - summed - 1
    ones = jnp.ones_like(jax.lax.slice_in_dim(values, 0, 1, axis=rows))
    y = jax.lax.dot_general(
        jnp.concatenate([values, ones], axis=rows),
        kernel,
        (axes, ((), ())),
        precision=_AS_THEY_ARE,
        preferred_element_type=jnp.int32,
    ).astype(jnp.float32)
    total = jax.lax.slice_in_dim(y, -1, None, axis=rows)
    y = jax.lax.slice_in_dim(y, 0, -1, axis=rows)
    each = (*low.shape[: rows + 1], *(1,) * (y.ndim - rows - 1))
    return y * (width / 255).reshape(each) + total * low.reshape(each)


def _summed_axes(inputs: jax.Array, summed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The last axes of inputs and the first of a kernel."""
    return tuple(range(inputs.ndim - summed, inputs.ndim)), tuple(range(summed))
