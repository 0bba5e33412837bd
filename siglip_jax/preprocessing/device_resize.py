"""big_vision's resize on the device, so that a host does nothing but decode.

Two matmuls with one-hot rows pick the four neighbours of every output pixel, and
elementwise arithmetic blends them as `resize.tf_resize` does. Blending inside the
matmuls would be shorter and wrong: weights that sum to one only within rounding
turn a white area into 254 when the result is truncated.

Against `tf_resize` only the blend can differ, where a compiler fuses a multiply
and an add into one rounding: at most one grey level, on less than one pixel in
10,000, and never in an area of one colour.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from siglip_jax.preprocessing.resize import bilinear_taps


def device_resize(
    images: UInt8[Array, "b h w 3"], out_h: int, out_w: int
) -> UInt8[Array, "b {out_h} {out_w} 3"]:
    """Squashes a batch to (out_h, out_w): bilinear, no antialias, truncated to uint8.

    Pure and jit-compatible; sizes are static, so that every input size compiles anew.

    Raises:
      ValueError: if `images` is not a batch of uint8 images.

    >>> device_resize(jnp.full((1, 30, 40, 3), 255, jnp.uint8), 7, 7).min().item()
    255
    """
    if images.ndim != 4 or images.dtype != jnp.uint8:
        raise ValueError(f"expected (b, h, w, 3) uint8 images, got {images.dtype}{images.shape}")
    y, x = bilinear_taps(images.shape[1], out_h), bilinear_taps(images.shape[2], out_w)
    # Integers up to 255 times 0 or 1 are exact even in one bfloat16 or TF32 pass, so
    # the fastest precision is as good as the highest, whatever the global setting says.
    pixels = images.astype(jnp.float32)
    rows = _one_hot(np.concatenate([y.low, y.high]), images.shape[1])
    columns = _one_hot(np.concatenate([x.low, x.high]), images.shape[2])
    pixels = jnp.einsum("oh,bhwc->bowc", rows, pixels, precision=jax.lax.Precision.DEFAULT)
    pixels = jnp.einsum("ow,bhwc->bhoc", columns, pixels, precision=jax.lax.Precision.DEFAULT)
    left, right = pixels[:, :, :out_w], pixels[:, :, out_w:]
    pixels = left + (right - left) * x.weight[None, None, :, None]
    top, bottom = pixels[:, :out_h], pixels[:, out_h:]
    return (top + (bottom - top) * y.weight[None, :, None, None]).astype(jnp.uint8)


def _one_hot(index: np.ndarray, size: int) -> np.ndarray:
    return (index[:, None] == np.arange(size)).astype(np.float32)
