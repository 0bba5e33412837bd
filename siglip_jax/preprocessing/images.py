"""From pixels to the square uint8 array that a fixed-resolution model takes.

The array stays uint8 on the host and on the way to the device, where it is
normalised; `to_float` is the same arithmetic on the host, for checks.
"""

import dataclasses

import numpy as np
from PIL import Image

from siglip_jax.preprocessing.decode import ImageSource, decode_image
from siglip_jax.preprocessing.profiles import ImageProfile
from siglip_jax.preprocessing.resize import tf_resize

_FILTERS = {
    "pil_bicubic": Image.Resampling.BICUBIC,
    "torch_bicubic": Image.Resampling.BICUBIC,
    "torch_bilinear": Image.Resampling.BILINEAR,
}


def resize_uint8(image: np.ndarray, height: int, width: int, profile: ImageProfile) -> np.ndarray:
    """(h, w, 3) uint8 to (height, width, 3) uint8 by the profile's method, aspect ignored.

    Raises:
      ValueError: for the NaFlex method of big_vision, which does not go through uint8.
    """
    if profile.resize == "tf_bilinear":
        return tf_resize(image, height, width)
    if method := _FILTERS.get(profile.resize):
        resized = Image.fromarray(image)
        if profile.resize.startswith("torch"):
            # torchvision filters across before down; Pillow may not, and both round between.
            resized = resized.resize((width, resized.height), method)
        return np.array(resized.resize((width, height), method))
    raise ValueError(f"resize {profile.resize} gives floats; use naflex_patches")


def resize_image(image: np.ndarray, res: int, profile: ImageProfile) -> np.ndarray:
    """(h, w, 3) uint8 to (res, res, 3) uint8: squashed, and cropped if the profile says so.

    >>> from siglip_jax import find
    >>> from siglip_jax.preprocessing import profile_for
    >>> profile = profile_for(find("siglip_b16_224")).image
    >>> resize_image(np.zeros((480, 640, 3), np.uint8), 224, profile).shape
    (224, 224, 3)
    """
    if profile.crop == 1:
        return resize_uint8(image, res, res, profile)
    side = int(res / profile.crop)
    start = (side - res) // 2
    return resize_uint8(image, side, side, profile)[start : start + res, start : start + res]


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
    return resize_image(decode_image(source, profile), res, profile)


def to_float(image: np.ndarray, value_range: tuple[float, float] = (-1.0, 1.0)) -> np.ndarray:
    """uint8 pixels as float32 in `value_range`, with big_vision's rounding.

    `value_range(-1, 1)` of big_vision `pp/ops_general.py`: first x/255, then low +
    x(high - low), each rounded to float32.

    >>> to_float(np.array([0, 51, 255], np.uint8))
    array([-1. , -0.6,  1. ], dtype=float32)
    """
    if image.dtype != np.uint8:
        raise ValueError(f"expected uint8 pixels, got {image.dtype}")
    low, high = np.float32(value_range[0]), np.float32(value_range[1])
    levels = low + np.arange(256, dtype=np.float32) / np.float32(255) * (high - low)
    return levels[image]
