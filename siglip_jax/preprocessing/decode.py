"""From a file, bytes, a Pillow image or an array to uint8 RGB pixels.

big_vision decodes with `tf.io.decode_image`. Its JPEG decoder is libjpeg-turbo with
the fast integer DCT, which simplejpeg gives bit for bit, CMYK included; Pillow uses
the accurate DCT. Other formats have one right answer, and Pillow reads them.
"""

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from siglip_jax.messages import reason
from siglip_jax.preprocessing.profiles import ImageProfile, Profile
from siglip_jax.preprocessing.signatures import (
    HEAD,
    image_format,
    read_by_plugin,
    unknown_format,
)

ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray

_JPEG = b"\xff\xd8\xff"
_ORIENTATION = 0x0112


def decode_image(source: ImageSource, profile: ImageProfile) -> np.ndarray:
    """Pixels of one image, (h, w, 3) uint8, not resized.

    Args:
      source: a path, the bytes of a file, a Pillow image (whose pixels Pillow
        decodes, whatever `profile.decode` says), or an array (h, w), (h, w, 1),
        (h, w, 3) or (h, w, 4) of uint8, uint16 or bool.
      profile: decoder, background behind alpha, EXIF rotation, pixel limit.

    16-bit images keep their high byte, as TensorFlow and Pillow (for colour) do.
    Animations give their first frame. Colour profiles are ignored.

    Raises:
      ValueError: one line that names the file and says what is wrong with it.

    >>> profile = ImageProfile(decode="fastdct", resize="tf_bilinear", res=224)
    >>> decode_image(np.zeros((4, 6), np.uint8), profile).shape
    (4, 6, 3)
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, profile)
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or "Pillow image"
        return _guarded(_from_pil, source, profile, str(name))
    if isinstance(source, bytes | bytearray | memoryview):
        data, name = bytes(source), "image bytes"
    elif isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        try:
            data = Path(source).read_bytes()
        except (OSError, ValueError) as error:
            raise ValueError(f"{name}: cannot be read: {reason(error)}") from error
    else:
        raise ValueError(
            f"expected a path, bytes, a Pillow image or a NumPy array, got {type(source).__name__}"
        )
    if not data:
        raise ValueError(f"{name}: the file is empty")
    return _guarded(_from_bytes, data, profile, name)


def drafted(profile: Profile) -> Profile:
    """`profile` with JPEG files decoded in draft, and a name that says so.

    Averaging while decoding takes the place of part of the resize, which in big_vision
    has no antialias, so that scores change: benchmarks/low_precision.py says by how much,
    benchmarks/decode_speed.py how much quicker it is.

    Raises:
      ValueError: for a NaFlex profile, or one whose JPEG files Pillow decodes.

    >>> from siglip_jax.checkpoints import find
    >>> from siglip_jax.preprocessing.profiles import profile_for
    >>> drafted(profile_for(find("siglip_b16_224"))).name
    'big_vision+draft'
    """
    if profile.image.decode == "pillow":
        raise ValueError(
            f"profile {profile.name} decodes with Pillow; the draft is of big_vision's decoder"
        )
    if profile.image.decode == "draft":
        return profile
    image = dataclasses.replace(profile.image, decode="draft")
    return dataclasses.replace(profile, name=f"{profile.name}+draft", image=image)


def rotated(profile: Profile) -> Profile:
    """`profile` with EXIF rotation applied, and a name that says so if it was not.

    >>> from siglip_jax.checkpoints import find
    >>> from siglip_jax.preprocessing.profiles import profile_for
    >>> rotated(profile_for(find("siglip_b16_224"))).name
    'big_vision+exif'
    """
    if profile.image.exif:
        return profile
    image = dataclasses.replace(profile.image, exif=True)
    return dataclasses.replace(profile, name=f"{profile.name}+exif", image=image)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an open image, 1 to 8; 1 where there is none, or a damaged one.

    >>> orientation_of(Image.new("RGB", (4, 4)))
    1
    """
    try:
        orientation = image.getexif().get(_ORIENTATION, 1) if "exif" in image.info else 1
    # Damaged metadata is no reason to refuse an image whose pixels are fine.
    except Exception:
        return 1
    return orientation if orientation in range(1, 9) else 1


def allow_pixels(count: int) -> None:
    """Has Pillow open images of `count` pixels: it has a limit for the whole process.

    It is only raised. Ours, of each profile, is checked before pixels are decoded.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and limit < count:
        Image.MAX_IMAGE_PIXELS = count


def _guarded(decode: Any, source: Any, profile: ImageProfile, name: str) -> np.ndarray:
    """Calls a decoder and gives every failure one line that starts with `name`."""
    try:
        image = decode(source, profile, name)
    except _Refused as error:
        raise ValueError(f"{name}: {error}") from None
    except UnidentifiedImageError as error:
        known = image_format(source[:HEAD]) if isinstance(source, bytes) else None
        raise ValueError(f"{name}: {unknown_format(known)}") from error
    # Pillow's readers raise whatever a damaged file makes them stumble over.
    except Exception as error:
        raise ValueError(f"{name}: cannot be decoded: {error}") from error
    return image


class _Refused(Exception):
    """An image that decodes but that we do not take."""


def _check_size(height: int, width: int, profile: ImageProfile) -> None:
    if not height or not width:
        raise _Refused(f"the image has no pixels ({width}x{height})")
    if height * width > profile.max_pixels:
        raise _Refused(
            f"{width}x{height} is {height * width:,} pixels, more than the limit of "
            f"{profile.max_pixels:,}; raise max_pixels in the profile (--max-pixels) if you trust "
            "it"
        )


def _from_bytes(data: bytes, profile: ImageProfile, name: str) -> np.ndarray:
    if data.startswith(_JPEG) and profile.decode in ("fastdct", "draft"):
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        except (ValueError, KeyError):
            # A header that is cut off, or subsampling that TurboJPEG cannot name, which
            # Pillow reads (with the accurate DCT).
            pass
        else:
            height, width = int(height), int(width)
            _check_size(height, width, profile)
            least = _draft_size(height, width, profile) if profile.decode == "draft" else (0, 0)
            image = _decode_jpeg(data, least, cmyk=colours in ("CMYK", "YCCK"))
            return _rotate(image, _orientation_of_jpeg(data)) if profile.exif else image
    allow_pixels(profile.max_pixels)
    try:
        opened = _opened(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _Refused(
            f"more pixels than Pillow takes: {error} Raise max_pixels in the profile "
            "(--max-pixels) if you trust it"
        ) from error
    with opened as image:
        return _from_pil(image, profile, name)


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        if not read_by_plugin(image_format(data[:HEAD])):
            raise
        return Image.open(io.BytesIO(data))


def _draft_size(height: int, width: int, profile: ImageProfile) -> tuple[int, int]:
    """The size at which to decode, or (0, 0) for the picture's own.

    libjpeg-turbo has quick code for a half, a quarter and an eighth only.
    """
    side = int(profile.res / profile.crop) if profile.res is not None else max(height, width)
    for share in (8, 4, 2):
        size = -(-height // share), -(-width // share)
        if min(size) >= side:
            return size
    return 0, 0


def _decode_jpeg(data: bytes, least: tuple[int, int], *, cmyk: bool) -> np.ndarray:
    space = "CMYK" if cmyk else "RGB"
    size: Any = {"min_height": least[0], "min_width": least[1]}
    try:
        image = simplejpeg.decode_jpeg(data, space, fastdct=True, **size)
    except ValueError as error:
        # TensorFlow refuses a JPEG that ends early, and takes one with other flaws.
        if "Premature end of JPEG file" in str(error):
            raise _Refused("the JPEG is truncated") from error
        image = simplejpeg.decode_jpeg(data, space, fastdct=True, strict=False, **size)
    if not cmyk:
        return image
    # big_vision: TensorFlow's own conversion. Files with an Adobe marker hold inverted inks.
    inks = image.astype(np.uint16)
    if b"\xff\xee\x00\x0eAdobe" not in data:
        inks = 255 - inks
    return (inks[..., 3:] * inks[..., :3] // 255).astype(np.uint8)


def _orientation_of_jpeg(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return _orientation(image)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    # Damaged metadata is no reason to refuse an image whose pixels are fine.
    except Exception:
        return 1


def _rotate(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation (1 to 8; anything else is ignored)."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _from_pil(image: Image.Image, profile: ImageProfile, name: str) -> np.ndarray:
    _check_size(image.height, image.width, profile)
    orientation = _orientation(image) if profile.exif else 1
    try:
        image.load()
    except OSError as error:
        raise _Refused(f"the image is truncated or damaged: {error}") from error
    pixels = _rgb(image, profile)
    return _rotate(pixels, orientation) if orientation != 1 else pixels


def _rgb(image: Image.Image, profile: ImageProfile) -> np.ndarray:
    if image.mode == "F":
        raise _Refused("float pixels have no agreed range; save it as 8-bit")
    if image.mode.startswith("I"):
        return _from_grey16(np.asarray(image))
    alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if alpha and profile.background is not None:
        if image.mode == "La":
            image = image.convert("LA")
        rgba = image.convert("RGBA")
        behind = Image.new("RGBA", image.size, (*profile.background, 255))
        image = Image.alpha_composite(behind, rgba)
    return np.array(image.convert("RGB"))


def _from_grey16(grey: np.ndarray) -> np.ndarray:
    if grey.min() < 0 or grey.max() > 65535:
        raise _Refused(
            f"integer pixels from {grey.min()} to {grey.max()} are not 16-bit; save it as 8-bit"
        )
    # big_vision: TensorFlow keeps the high byte of 16-bit PNGs.
    return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)


def _from_array(array: np.ndarray, profile: ImageProfile) -> np.ndarray:
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
        return _rgb(Image.fromarray(np.ascontiguousarray(array), "RGBA"), profile)
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array)
