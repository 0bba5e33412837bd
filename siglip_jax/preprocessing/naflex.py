"""From pixels to the sequence of patches that a NaFlex model takes.

Follows big_vision `pp/proj/image_text/ops_naflex.py` at 0127fb6: `value_range`,
`resize_to_sequence`, `patchify`, padding. Patches of one size keep the aspect ratio
nearly, and fill the sequence as far as whole patches allow; small images grow.
"""

from typing import Any, NamedTuple

import numpy as np

from siglip_jax.preprocessing.images import resize_image, resize_uint8, to_float
from siglip_jax.preprocessing.pixels import Pixels, array_of, size_of
from siglip_jax.preprocessing.profiles import ImageProfile
from siglip_jax.preprocessing.resize import tf_antialias_resize


class Patches(NamedTuple):
    """Images as sequences of n flattened patches; big_vision's names and order.

    Arrays of NumPy or JAX, with a leading batch axis or, of one image, without.

    Attributes:
      patches: (..., n, patch·patch·3) float32 in [-1, 1], pixels of a patch in order
        (y, x, channel).
      type: (..., n) int32, 1 for a patch and 0 for padding.
      yidx, xidx: (..., n) int32 coordinates of a patch in its image, row by row; 0 for
        padding.
    """

    patches: Any
    type: Any
    yidx: Any
    xidx: Any


def target_size(height: int, width: int, patch: int, max_patches: int) -> tuple[int, int]:
    """Size in pixels to which an image is resized before it is cut into patches.

    The largest scale, found to 1e-5 by bisection in float32, at which both sides
    rounded up to whole patches give at most `max_patches`.

    Raises:
      ValueError: if the image is so long that no scale above 1e-5 fits.

    >>> target_size(480, 640, patch=16, max_patches=256)
    (224, 288)
    >>> target_size(1, 1, patch=16, max_patches=256)  # scaled by 100 at most
    (112, 112)
    """
    eps = np.float32(1e-5)
    size = np.array([height, width], np.float32)
    side = np.float32(patch)

    def grid(ratio: np.float32) -> np.ndarray:
        return np.maximum(np.ceil(size * ratio / side), 1).astype(np.int64)

    low, high = np.float32(1e-5 / 10), np.float32(100)
    while high - low >= eps:
        middle = (low + high) / np.float32(2)
        if grid(middle).prod() <= max_patches:
            low = middle
        else:
            high = middle
    if low <= eps:
        raise ValueError(
            f"an image of {width}x{height} does not fit into {max_patches} patches of {patch}"
        )
    rows, columns = grid(low)
    return int(rows) * patch, int(columns) * patch


def naflex_patches(
    image: Pixels, profile: ImageProfile, patch: int, max_patches: int | None = None
) -> Patches:
    """Pixels (h, w, 3) uint8 as a sequence of exactly `max_patches` patches.

    Args:
      image: what `decode_image` returns.
      profile: with resize "tf_antialias" pixels are normalised first and then
        resized as floats; otherwise resized as uint8 and then normalised.
        A profile with `res` squashes to that square instead of keeping the aspect.
      patch: side of a patch in pixels.
      max_patches: length of the sequence; default: the profile's own.

    Raises:
      ValueError: if the profile has no `max_patches` and none is given, or the
        image cannot fit.

    >>> from siglip_jax.checkpoints import find
    >>> from siglip_jax.preprocessing.profiles import profile_for
    >>> profile = profile_for(find("siglip2_b16_naflex")).image
    >>> one = naflex_patches(np.zeros((480, 640, 3), np.uint8), profile, patch=16)
    >>> one.patches.shape, int(one.type.sum()), int(one.xidx.max()) + 1
    ((256, 768), 252, 18)
    """
    max_patches = max_patches or profile.max_patches
    if max_patches is None:
        raise ValueError("the profile is for a fixed resolution; give max_patches")
    if profile.res is None:
        height, width = target_size(*size_of(image), patch, max_patches)
    else:
        height = width = profile.res // patch * patch
        if profile.fit != "squash" or profile.crop != 1:
            image = resize_image(image, height, profile)
    rows, columns = height // patch, width // patch
    if rows * columns > max_patches:
        raise ValueError(f"{rows}x{columns} patches do not fit into {max_patches}")
    if profile.resize == "tf_antialias":
        # big_vision: normalised before the resize, and neither rounded nor clipped after it.
        pixels = to_float(array_of(image), profile.value_range)
        pixels = tf_antialias_resize(pixels, height, width)
    else:
        pixels = to_float(resize_uint8(image, height, width, profile), profile.value_range)

    used = rows * columns
    patches = np.zeros((max_patches, patch * patch * 3), np.float32)
    tiles = pixels.reshape(rows, patch, columns, patch, 3).swapaxes(1, 2)
    patches[:used] = tiles.reshape(used, -1)
    kind, yidx, xidx = np.zeros((3, max_patches), np.int32)
    kind[:used] = 1
    yidx[:used], xidx[:used] = np.divmod(np.arange(used), columns)
    return Patches(patches, kind, yidx, xidx)
