"""The NaFlex image tower: any aspect ratio, any sequence length.

Follows big_vision `models/proj/image_text/naflex_vit.py` at 0127fb6. Differs in
how the position embedding is resampled: the antialiased bilinear weights are
the same, but they are evaluated at the coordinates of the patches alone, as one
small matmul, instead of on a 64x64 canvas from which patches are gathered.
"""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from siglip_jax.config import Execution, NaFlexVision
from siglip_jax.models.transformer import Encoder, Intermediates, pooled
from siglip_jax.preprocessing.naflex import Patches


def check_patches(patches: Patches, config: NaFlexVision, *, bounded: bool = True) -> Patches:
    """Returns `patches` if a model can take them; of arrays on devices the indices are fetched.

    Args:
      bounded: whether a coordinate outside `config.canvas` is an error, because big_vision
        would silently give NaN for it; else a warning: it is computed as transformers does.

    Raises:
      ValueError: if shapes disagree, an image has no patch at all, or a
        coordinate is negative or outside the canvas.

    >>> from siglip_jax.config import SIZES
    >>> config = NaFlexVision(size=SIZES["B"], patch=16)
    >>> wide = np.arange(80, dtype=np.int32)[None]
    >>> zeros = np.zeros_like(wide)
    >>> check_patches(Patches(np.zeros((1, 80, 768), np.float32), zeros + 1, zeros, wide), config)
    Traceback (most recent call last):
      ...
    ValueError: image 0 has a patch at column 64, but the model takes at most 64 patches a side; ...
    """
    shape = np.shape(patches.patches)
    expected = (*shape[:2], config.patch**2 * 3)
    if len(shape) != 3 or shape != expected:
        raise ValueError(
            f"expected patches of shape (b, n, {config.patch**2 * 3}) for patch size "
            f"{config.patch}, got {shape}"
        )
    for name in ("type", "yidx", "xidx"):
        if np.shape(getattr(patches, name)) != shape[:2]:
            raise ValueError(
                f"expected {name} of shape {shape[:2]}, got {np.shape(getattr(patches, name))}"
            )
    valid = np.asarray(jax.device_get(patches.type)) == 1
    if not valid.any(axis=1).all():
        empty = int(np.argmin(valid.any(axis=1)))
        raise ValueError(f"image {empty} has no patches: its type is 0 everywhere")
    for name, side in (("yidx", "row"), ("xidx", "column")):
        index = np.asarray(jax.device_get(getattr(patches, name)))
        outside = (index < 0) | (index >= config.canvas)
        if outside.any():
            image, position = np.argwhere(outside)[0]
            found = int(index[image, position])
            what = f"image {image} has a patch at {side} {found}"
            _beyond(what, config, bounded=bounded or found < 0)
    return patches


def check_grid(patches: Patches, config: NaFlexVision, *, bounded: bool = True) -> Patches:
    """Returns the `patches` of one image, of shapes (n, ...), if they lie on the canvas.

    Args:
      bounded: as for `check_patches`.

    Raises:
      ValueError: if they do not.

    >>> from siglip_jax.config import SIZES
    >>> config = NaFlexVision(size=SIZES["B"], patch=16)
    >>> column, zeros = np.arange(80, dtype=np.int32), np.zeros(80, np.int32)
    >>> check_grid(Patches(np.zeros((80, 768), np.float32), zeros + 1, zeros, column), config)
    Traceback (most recent call last):
      ...
    ValueError: it has 80 columns of patches, but the model takes at most 64 patches a side; ...
    """
    for index, sides in ((patches.yidx, "rows"), (patches.xidx, "columns")):
        if (count := int(np.max(index)) + 1) > config.canvas:
            _beyond(f"it has {count} {sides} of patches", config, bounded=bounded)
    return patches


def _beyond(what: str, config: NaFlexVision, *, bounded: bool) -> None:
    if bounded:
        raise ValueError(
            f"{what}, but the model takes at most {config.canvas} patches a side; crop the image, "
            "use fewer patches, or prepare it as transformers does (profile='transformers'), "
            "which has no such limit"
        )
    warnings.warn(
        f"an image has more than {config.canvas} patches a side: its position embedding is "
        "computed as transformers does; big_vision, which the model was trained with, has none",
        stacklevel=4,
    )


def resample_posemb(
    posemb: Float[Array, "g g d"], yidx: Int[Array, "b n"], xidx: Int[Array, "b n"]
) -> Float[Array, "b n d"]:
    """The position embedding, resized to each image's own grid, at its patches.

    Equals `jax.image.scale_and_translate(method="bilinear", antialias=True)` to
    (max y + 1, max x + 1) followed by a gather, which is what big_vision does. float32,
    whatever the table is stored in.
    """
    grid, _, d = posemb.shape

    def weights(index: Int[Array, "b n"]) -> Float[Array, "b n g"]:
        scale = grid / (index.max(axis=1, keepdims=True) + 1).astype(jnp.float32)
        centre = (index.astype(jnp.float32) + 0.5) * scale - 0.5
        # Antialias: going down in size, the triangle is as wide as an output cell.
        distance = jnp.abs(centre[:, :, None] - jnp.arange(grid, dtype=jnp.float32)[None, None])
        triangle = jnp.maximum(0.0, 1.0 - distance / jnp.maximum(scale, 1.0)[:, :, None])
        return triangle / triangle.sum(axis=-1, keepdims=True)

    both = weights(yidx)[:, :, :, None] * weights(xidx)[:, :, None, :]
    both = both.reshape(*yidx.shape, grid * grid)
    table = posemb.reshape(grid * grid, d)
    resampled = jnp.matmul(both, table.astype(both.dtype), precision=jax.lax.Precision.HIGHEST)
    return resampled


class NaFlexVisionTower(nn.Module):
    """A ViT over patches with coordinates; padding never changes its output."""

    config: NaFlexVision
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self, image: Patches, *, map_weights: bool = False, return_blocks: bool = False
    ) -> tuple[Float[Array, "b d"] | None, Intermediates]:
        """Embeds patches; not yet normalised to unit norm. None with `pool="none"`.

        Coordinates must lie on the canvas: see `check_patches`.
        """
        config, run = self.config, self.execution
        out: Intermediates = {}
        d = config.size.width
        x = out["stem"] = nn.Dense(d, dtype=run.dtype, name="embedding")(
            jnp.asarray(image.patches, run.dtype)
        )
        posemb = self.param(
            "pos_embedding",
            nn.initializers.normal(stddev=1 / np.sqrt(d)),
            (config.posemb_grid, config.posemb_grid, d),
            jnp.dtype(run.dtype),
        )
        resampled = resample_posemb(posemb, image.yidx, image.xidx)
        x = out["with_posemb"] = x + resampled.astype(jnp.result_type(x, posemb))
        valid = image.type == 1
        # big_vision: padding neither looks nor is looked at.
        x, out["encoder"] = Encoder(
            size=config.size,
            dtype=run.dtype,
            attention=run.attention,
            scan=run.scan_image,
            remat=run.remat,
            return_blocks=return_blocks,
            name="Transformer",
        )(x, valid[:, :, None] & valid[:, None, :])
        out["encoded"] = x
        z, more = pooled(
            x,
            valid,
            pool=config.pool,
            size=config.size,
            attention=run.attention,
            map_weights=map_weights,
        )
        return z, out | more
