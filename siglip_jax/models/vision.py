"""The image tower for one fixed resolution.

Follows big_vision `models/vit.py` at 0127fb6 without a classification head, and with
`pool_type="map"`, which is how every SigLIP checkpoint was released; or "gap", or no pooling
at all, for towers that were taken without their head.
"""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from siglip_jax.config import Execution, Vision
from siglip_jax.models.activations import platform
from siglip_jax.models.transformer import Encoder, Intermediates, pooled
from siglip_jax.preprocessing.profiles import Levels


def value_range(
    image: UInt8[Array, "b h w 3"], low: Levels = -1.0, high: Levels = 1.0
) -> Float[Array, "b h w 3"]:
    """uint8 pixels to float32 in [low, high], in big_vision's order of operations.

    The ends are numbers, or three for red, green and blue.

    Source: `pp/ops_general.py`, `value_range(-1, 1)`. XLA multiplies by 1/255 where big_vision
    divides on the host, so that levels may differ from its by up to 1.2e-7.

    >>> value_range(jnp.array([[[[0, 51, 255]]]], jnp.uint8)).ravel().round(3)
    Array([-1. , -0.6,  1. ], dtype=float32)
    """
    if isinstance(low, tuple) or isinstance(high, tuple):
        ends = np.asarray([np.broadcast_to(end, 3) for end in (low, high)], np.float32)
        low_each, high_each = jnp.asarray(ends).reshape(2, 1, 1, 1, 3)
        return low_each + image.astype(jnp.float32) / 255.0 * (high_each - low_each)
    return low + image.astype(jnp.float32) / 255.0 * (high - low)


def _patch_matmul(
    image: Float[Array, "b h w c"],
    kernel: Float[Array, "p q c d"],
    *how: Any,
    precision: Any = None,
    **more: Any,
) -> Float[Array, "b m n d"]:
    """`lax.conv_general_dilated` where strides are the kernel's sides: a matmul of patches.

    `how` and `more`, which say so, are what `nn.Conv` gives to every function in its place.
    """
    (b, height, width, c), (p, q) = image.shape, kernel.shape[:2]
    m, n = height // p, width // q
    patches = image[:, : m * p, : n * q].reshape(b, m, p, n, q, c).transpose(0, 1, 3, 2, 4, 5)
    return jnp.matmul(
        patches.reshape(b, m, n, p * q * c), kernel.reshape(p * q * c, -1), precision=precision
    )


class VisionTower(nn.Module):
    """A ViT: patches, position embedding, blocks, and the pooling that `config` names."""

    config: Vision
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b h w 3"],
        *,
        map_weights: bool = False,
        return_blocks: bool = False,
    ) -> tuple[Float[Array, "b d"] | None, Intermediates]:
        """Embeds images with values in [-1, 1]; not yet normalised to unit norm.

        With `pool="none"` there is no embedding; `out["encoded"]` has the patches.

        Raises:
          ValueError: if the images are not `config.res` pixels square. A model
            for another resolution is loaded as such, with its position
            embedding resampled; it is never stretched here. (What is left of
            `config.res` after whole patches, 378 of 384, is the same to the model.)
        """
        config, run = self.config, self.execution
        out: Intermediates = {}
        sides = {(config.res,) * 2, (config.grid * config.patch,) * 2}
        if image.shape[1:3] not in sides or image.shape[3:] != (3,):
            raise ValueError(
                f"expected images of shape (b, {config.res}, {config.res}, 3), got {image.shape}; "
                "resize them, or load the model with res="
            )
        patch, d = (config.patch, config.patch), config.size.width
        # big_vision: VALID drops the pixels beyond the last whole patch (384 = 27·14 + 6).
        x = out["stem"] = nn.Conv(
            d,
            patch,
            strides=patch,
            padding="VALID",
            dtype=run.dtype,
            # On GPUs the convolution is slow: benchmarks/gpu, part `choices`.
            conv_general_dilated=_patch_matmul if platform() == "gpu" else None,
            name="embedding",
        )(jnp.asarray(image, run.dtype))
        b, h, w, _ = x.shape
        x = x.reshape(b, h * w, d)
        posemb = self.param(
            "pos_embedding", nn.initializers.normal(stddev=1 / np.sqrt(d)), (1, h * w, d), x.dtype
        )
        x = out["with_posemb"] = x + posemb
        x, out["encoder"] = Encoder(
            size=config.size,
            dtype=run.dtype,
            attention=run.attention,
            scan=run.scan_image,
            remat=run.remat,
            return_blocks=return_blocks,
            name="Transformer",
        )(x)
        out["encoded"] = x
        out["pre_logits_2d"] = x.reshape(b, h, w, d)
        z, more = pooled(
            x,
            pool=config.pool,
            size=config.size,
            attention=run.attention,
            map_weights=map_weights,
        )
        return z, out | more
