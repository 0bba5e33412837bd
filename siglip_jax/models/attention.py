"""Scaled dot-product attention: one function, several implementations.

All implementations compute the same function and are held to one conformance
suite (`tests/models/test_conformance.py`). `einsum` is the readable reference, the
form flax's `MultiHeadDotProductAttention` and so big_vision uses. `matmul`
folds the heads into one batched matmul. `xla` and `cudnn` are those of
`jax.nn.dot_product_attention`. `auto` is one of them, see `chosen_attention`.
"""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from siglip_jax.config import Attention
from siglip_jax.models.activations import device, platform


def chosen_attention(
    device: str | None, *, fused: bool = False
) -> Literal["matmul", "einsum", "cudnn"]:
    """What `auto` means on a device platform, such as "tpu"; None is an unknown one.

    Args:
      fused: whether cuDNN's fused attention takes these arrays there, see `cudnn_takes`.

    >>> chosen_attention("cpu"), chosen_attention("tpu"), chosen_attention("gpu", fused=True)
    ('matmul', 'einsum', 'cudnn')
    """
    if fused:
        # The fastest measured on a GPU: benchmarks/gpu, part `choices`.
        return "cudnn"
    if device == "tpu":
        # Folding the heads costs copies of query, key and value there, in what libtpu
        # compiles: benchmarks/tpu_against_big_vision.py.
        return "einsum"
    # The fastest measured on a CPU (benchmarks/compare.py), and on a GPU without cuDNN.
    return "matmul"


def cudnn_takes(
    device: Any | None,
    query: jax.Array | jax.ShapeDtypeStruct,
    key: jax.Array | jax.ShapeDtypeStruct,
    mask: jax.Array | None = None,
) -> bool:
    """Whether cuDNN's fused attention exists for these arrays on a device, and is worth while.

    What it can do is in `jax._src.cudnn.fused_attention_stablehlo`: half precision, an NVIDIA
    card of 2020 or later, head dimensions up to 128 that are a multiple of 8, and with a mask,
    for its gradient, even lengths. One query, which is the MAP head's, is left to matmuls.

    >>> cudnn_takes(None, *[jax.ShapeDtypeStruct((1, 196, 12, 64), "bfloat16")] * 2)
    False
    """
    n, head_dim = query.shape[1], query.shape[3]
    return (
        _capability(device) >= 8
        and query.dtype in (jnp.bfloat16, jnp.float16)
        and head_dim <= 128
        and head_dim % 8 == 0
        and n > 1
        and (mask is None or (n % 2 == 0 and key.shape[1] % 2 == 0))
    )


def _capability(device: Any | None) -> float:
    """CUDA's compute capability; 0 of everything else, cards of AMD included."""
    try:
        return float(getattr(device, "compute_capability", 0))
    except ValueError:
        return 0.0


def attention_weights(
    query: Float[Array, "b nq k d"],
    key: Float[Array, "b nk k d"],
    mask: Bool[Array, "#b #nq nk"] | None = None,
) -> Float[Array, "b k nq nk"]:
    """Softmax of the scaled, masked products of `query` and `key`.

    Rows that a mask forbids entirely attend uniformly: no NaN.
    """
    # big_vision: the query is scaled before the matmul and the softmax runs in
    # the compute dtype (flax `dot_product_attention_weights` defaults).
    query = query / jnp.sqrt(query.shape[-1]).astype(query.dtype)
    logits = jnp.einsum("bqkd,bvkd->bkqv", query, key)
    if mask is not None:
        logits = jnp.where(mask[:, None], logits, _least(logits.dtype))
    return jax.nn.softmax(logits)


def attention(
    query: Float[Array, "b nq k d"],
    key: Float[Array, "b nk k d"],
    value: Float[Array, "b nk k d"],
    mask: Bool[Array, "#b #nq nk"] | None = None,
    *,
    implementation: Attention = "auto",
) -> Float[Array, "b nq k d"]:
    """Multi-head attention of `nq` queries over `nk` keys.

    Args:
      query, key, value: axes batch, position, head, head dimension.
      mask: True where a query may look at a key; broadcasts over batch and
        queries. None allows everything.
      implementation: see the module docstring.

    Raises:
      ValueError: if `cudnn` is asked for on a dtype that it does not have.

    >>> x = jnp.ones((1, 3, 2, 8))
    >>> attention(x, x, x).shape
    (1, 3, 2, 8)
    """
    if implementation == "auto":
        fused = cudnn_takes(device(), query, key, mask)
        implementation = chosen_attention(platform(), fused=fused)
    if implementation == "einsum":
        weights = attention_weights(query, key, mask)
        return jnp.einsum("bkqv,bvkd->bqkd", weights, value)
    if implementation == "matmul":
        return _batched_matmul(query, key, value, mask)
    if implementation == "cudnn" and query.dtype not in (jnp.bfloat16, jnp.float16):
        raise ValueError(
            f"attention 'cudnn' needs bfloat16 or float16, got {query.dtype}; "
            "use 'xla' or 'matmul' for float32"
        )
    if mask is not None and implementation == "cudnn":  # which broadcasts over no queries
        mask = jnp.broadcast_to(mask, (mask.shape[0], query.shape[1], key.shape[1]))
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=None if mask is None else mask[:, None],
        implementation=implementation,
    )


def _batched_matmul(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None
) -> jax.Array:
    b, nq, k, d = query.shape
    nk = key.shape[1]

    def fold(x: jax.Array) -> jax.Array:  # (b, n, k, d) -> (b·k, n, d)
        return x.transpose(0, 2, 1, 3).reshape(b * k, x.shape[1], d)

    query = query / jnp.sqrt(d).astype(query.dtype)  # big_vision: scaled before the matmul
    # Scores and sums in float32, as XLA's kernels for bfloat16 give them.
    logits = jnp.matmul(
        fold(query), fold(key).transpose(0, 2, 1), preferred_element_type=jnp.float32
    )
    if mask is not None:
        logits = logits.reshape(b, k, nq, nk)
        logits = jnp.where(mask[:, None], logits, _least(logits.dtype))
        logits = logits.reshape(b * k, nq, nk)
    # The softmax is divided by its sums after the matmul, which has fewer numbers to divide.
    logits -= jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    weights = jnp.exp(logits)
    out = jnp.matmul(weights.astype(value.dtype), fold(value), preferred_element_type=jnp.float32)
    out = (out / weights.sum(-1, keepdims=True)).astype(value.dtype)
    return out.reshape(b, k, nq, d).transpose(0, 2, 1, 3)


def _least(dtype: Any) -> float:
    return float(cast(Any, jnp.finfo(dtype)).min)
