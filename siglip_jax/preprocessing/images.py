"""From pixels to the square uint8 array that a fixed-resolution model takes.

The array stays uint8 on the host and on the way to the device, where it is
normalised; `to_float` is the same arithmetic on the host, for checks.
"""

import dataclasses

import numpy as np
from PIL import Image

from siglip_jax.preprocessing.decode import ImageSource, decoded
from siglip_jax.preprocessing.pixels import Pixels, array_of, size_of
from siglip_jax.preprocessing.profiles import Fit, ImageProfile, PixelRange
from siglip_jax.preprocessing.resize import tf_resize
from siglip_jax.preprocessing.torch_resize import torch_resize

_PILLOW = {method.name.lower(): method for method in Image.Resampling}


def resize_uint8(image: Pixels, height: int, width: int, profile: ImageProfile) -> np.ndarray:
    """Pixels (h, w, 3) uint8 to (height, width, 3) uint8 by the profile's method, aspect ignored.

    Raises:
      ValueError: for the NaFlex method of big_vision, which does not go through uint8.
    """
    system, method = profile.resize.split("_")
    if profile.resize == "tf_bilinear":
        return tf_resize(array_of(image), height, width)
    if system == "torch" and method != "nearest":
        return torch_resize(image, height, width, method)
    if system != "tf":
        pillow = image if isinstance(image, Image.Image) else Image.fromarray(image)
        return np.array(pillow.resize((width, height), _PILLOW[method]))
    raise ValueError(f"resize {profile.resize} gives floats; use naflex_patches")


def resize_image(image: Pixels, res: int, profile: ImageProfile) -> np.ndarray:
    """Pixels (h, w, 3) uint8 to (res, res, 3) uint8, as the profile fits images into a square.

    >>> from siglip_jax import find
    >>> from siglip_jax.preprocessing import profile_for
    >>> profile = profile_for(find("siglip_b16_224")).image
    >>> resize_image(np.zeros((480, 640, 3), np.uint8), 224, profile).shape
    (224, 224, 3)

    Raises:
      ValueError: for an image so long that, resized by its shorter side, it has more than
        `profile.max_pixels`.
    """
    side = int(res / profile.crop)
    whole = size_of(image)
    height, width = fitted_size(*whole, side, profile.fit)
    if profile.fit != "squash" and height * width > profile.max_pixels:
        raise ValueError(
            f"an image of {whole[1]}x{whole[0]} would be resized to {width}x{height}, more than "
            f"the limit of {profile.max_pixels:,} pixels, to keep its aspect ratio"
        )
    made = resize_uint8(image, height, width, profile)
    return made if (height, width) == (res, res) else _centre(made, res, profile)


def fitted_size(height: int, width: int, side: int, fit: Fit) -> tuple[int, int]:
    """The size to which an image is resized to fit a square of `side` pixels.

    >>> fitted_size(480, 640, 224, "squash")
    (224, 224)
    >>> fitted_size(480, 640, 224, "shortest")
    (224, 298)
    >>> fitted_size(480, 640, 224, "longest")
    (168, 224)
    """
    if fit == "squash":
        return side, side
    if fit == "longest":
        ratio = max(height / side, width / side)
        return max(round(height / ratio), 1), max(round(width / ratio), 1)
    long = int(side * max(height, width) / min(height, width))
    return (side, long) if height <= width else (long, side)


def _centre(image: np.ndarray, res: int, profile: ImageProfile) -> np.ndarray:
    """The central square of `res` pixels, with `fill` around an image that is smaller."""
    height, width = image.shape[:2]
    if min(height, width) < res:
        behind = np.empty((max(height, res), max(width, res), 3), np.uint8)
        behind[:] = profile.fill
        y, x = (behind.shape[0] - height) // 2, (behind.shape[1] - width) // 2
        behind[y : y + height, x : x + width] = image
        image = behind
    # torchvision's CenterCrop, of open_clip and timm, rounds halves to even; others down.
    halves = [(side - res) / 2 for side in image.shape[:2]]
    y, x = (round(h) if profile.resize.startswith("pil") else int(h) for h in halves)
    return np.ascontiguousarray(image[y : y + res, x : x + res])


def preprocess_image(
    source: ImageSource, profile: ImageProfile, res: int | None = None
) -> np.ndarray:
    """One image as the (res, res, 3) uint8 array that a fixed-resolution model takes.

    Args:
      source: anything that `decode_image` takes.
      profile: how to decode and resize it.
      res: side in pixels; default: the profile's own.

    Raises:
      ValueError: if the image cannot be read, or the profile is for NaFlex and
        no `res` is given.

    >>> from siglip_jax.checkpoints import find
    >>> from siglip_jax.preprocessing.profiles import profile_for
    >>> profile = profile_for(find("siglip_b16_224")).image
    >>> preprocess_image(np.zeros((30, 40, 3), np.uint8), profile).shape
    (224, 224, 3)
    """
    res = res or profile.res
    if res is None:
        raise ValueError("the profile keeps aspect ratios (NaFlex); use naflex_patches")
    # A draft is decoded for the size that is asked for.
    profile = dataclasses.replace(profile, res=res) if res != profile.res else profile
    return resize_image(decoded(source, profile), res, profile)


def to_float(image: np.ndarray, value_range: PixelRange = (-1.0, 1.0)) -> np.ndarray:
    """uint8 pixels (..., 3) as float32 in `value_range`, with big_vision's rounding.

    `value_range(-1, 1)` of big_vision `pp/ops_general.py`: first x/255, then low +
    x(high - low), each rounded to float32.

    >>> to_float(np.array([0, 51, 255], np.uint8))
    array([-1. , -0.6,  1. ], dtype=float32)
    """
    if image.dtype != np.uint8:
        raise ValueError(f"expected uint8 pixels, got {image.dtype}")
    grey = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
    low, high = (np.asarray(end, np.float32) for end in value_range)
    levels = low + grey * (high - low)
    return levels[:, 0][image] if low.ndim == 0 else levels[image, np.arange(3)]
