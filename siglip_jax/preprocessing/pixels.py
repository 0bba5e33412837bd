"""Decoded pixels: an array, or an image of Pillow's, and from any of its modes to RGB."""

import numpy as np
from PIL import Image

from siglip_jax.preprocessing.profiles import ImageProfile

# An array (h, w, 3) uint8, or what Pillow has decoded, in its own memory and of mode RGB.
Pixels = np.ndarray | Image.Image


class Refused(Exception):
    """An image that decodes but that we do not take."""


def array_of(pixels: Pixels) -> np.ndarray:
    """Pixels as an array (h, w, 3) uint8."""
    return np.array(pixels) if isinstance(pixels, Image.Image) else pixels


def size_of(pixels: Pixels) -> tuple[int, int]:
    """Height and width.

    >>> size_of(Image.new("RGB", (6, 4))), size_of(np.zeros((4, 6, 3), np.uint8))
    ((4, 6), (4, 6))
    """
    if isinstance(pixels, Image.Image):
        return pixels.height, pixels.width
    return pixels.shape[0], pixels.shape[1]


def rotate(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation (1 to 8; anything else is ignored)."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def rgb_of(image: Image.Image, profile: ImageProfile) -> Pixels:
    """What is loaded, of whatever mode, as RGB."""
    if image.mode == "F":
        raise Refused("float pixels have no agreed range; save it as 8-bit")
    if image.mode.startswith("I"):
        return _from_grey16(np.asarray(image))
    alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if alpha and profile.background is not None:
        if image.mode == "La":
            image = image.convert("LA")
        rgba = image.convert("RGBA")
        behind = Image.new("RGBA", image.size, (*profile.background, 255))
        image = Image.alpha_composite(behind, rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_grey16(grey: np.ndarray) -> np.ndarray:
    if grey.min() < 0 or grey.max() > 65535:
        raise Refused(
            f"integer pixels from {grey.min()} to {grey.max()} are not 16-bit; save it as 8-bit"
        )
    # big_vision: TensorFlow keeps the high byte of 16-bit PNGs.
    return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)


def from_array(array: np.ndarray, profile: ImageProfile) -> np.ndarray:
    """An array of any shape and type that is taken, as (h, w, 3) uint8."""
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise ValueError(
            f"expected an array of uint8, uint16 or bool, got {array.dtype}; "
            "scale it to 0..255 and cast it to uint8"
        )
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise ValueError(
            f"expected an array of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), "
            f"got {array.shape}"
        )
    if array.shape[2] == 4:
        return array_of(rgb_of(Image.fromarray(np.ascontiguousarray(array), "RGBA"), profile))
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array)
