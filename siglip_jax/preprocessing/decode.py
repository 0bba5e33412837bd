"""From a file, bytes, a Pillow image or an array to uint8 RGB pixels.

big_vision decodes with `tf.io.decode_image`. Its JPEG decoder is libjpeg-turbo with
the fast integer DCT, which simplejpeg gives bit for bit, CMYK included; Pillow uses
the accurate DCT. Other formats have one right answer, and Pillow reads them.

Only formats that we mean are given to Pillow, which knows forty, one of which runs Ghostscript.
What could take minutes is decoded in a process (`decode_process`).
"""

import dataclasses
import functools
import io
import os
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from siglip_jax.messages import reason
from siglip_jax.preprocessing import decode_process
from siglip_jax.preprocessing.picture_cost import Road, road
from siglip_jax.preprocessing.pixels import (
    Pixels,
    Refused,
    array_of,
    from_array,
    rgb_of,
    rotate,
)
from siglip_jax.preprocessing.profiles import ImageProfile, Profile
from siglip_jax.preprocessing.signatures import (
    HEAD,
    image_format,
    read_by_plugin,
    unknown_format,
)
from siglip_jax.regular_file import read_regular

ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray

_JPEG = b"\xff\xd8\xff"
_ORIENTATION = 0x0112
_EXIF = ("exif", "Raw profile type exif")
_EXIF_IN_JPEG = 1 << 17  # bytes in which it begins, if there is any
_MOST_EXIF = 1 << 17  # characters; a JPEG can hold half of it in bytes
# Pillow's names. JPEG's reader reads MPO, and a plugin JXL.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "HEIF", "ICO", "JXL")


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
    return array_of(decoded(source, profile))


def decoded(source: ImageSource, profile: ImageProfile, found: Road | None = None) -> Pixels:
    """As `decode_image`, but that pixels which Pillow has decoded stay its image, of mode RGB.

    Pillow resizes its own images: an array would be copied out of one and into another.

    Args:
      found: of the bytes of a file, what `road` said of them, if it was asked.
    """
    if isinstance(source, np.ndarray):
        return from_array(source, profile)
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or "Pillow image"
        return _guarded(_from_pil, source, profile, str(name))
    if isinstance(source, bytes | bytearray | memoryview):
        data, name = bytes(source), "image bytes"
    elif isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        try:
            data = read_regular(source)
        except (OSError, ValueError) as error:
            raise ValueError(f"{name}: cannot be read: {reason(error)}") from error
    else:
        raise ValueError(
            f"expected a path, bytes, a Pillow image or a NumPy array, got {type(source).__name__}"
        )
    if not data:
        raise ValueError(f"{name}: the file is empty")
    return _guarded(functools.partial(_here_or_there, found=found), data, profile, name)


def measured(data: bytes, profile: ImageProfile) -> tuple[int, int, str, bool]:
    """What `decode_process.Decoded` says of the bytes of a file, by its header.

    Raises:
      ValueError: if it is no image that is decoded.
    """
    return _guarded(_measured, data, profile, "image bytes")


def pixels_of(data: bytes, profile: ImageProfile) -> Pixels:
    """As `decoded`, in this process whatever it may take."""
    return _guarded(_from_bytes, data, profile, "image bytes")


def cost(
    data: bytes, profile: ImageProfile, found: Road | None = None
) -> decode_process.Decoded | None:
    """Size and mode of the bytes of a file, by its header; None where decoding will say why not.

    Args:
      found: what `road` said of them, if it was asked.

    Raises:
      ValueError: if it is no image that is decoded, and finding that out has taken a process.
    """
    process, refused, jpeg = found or road(data)
    if refused:
        return None
    if process:
        try:
            return decode_process.ask(data, profile, decode=False)
        except decode_process.Failed as error:
            raise ValueError(str(error)) from None
    if jpeg is not None:
        fits = 0 < jpeg.height * jpeg.width <= profile.max_pixels
        mode = "CMYK" if jpeg.components == 4 else "RGB"
        if not fits:
            return None
        carries = data.find(b"Exif", 0, min(jpeg.begin, _EXIF_IN_JPEG)) >= 0
        turned = not profile.exif and carries and _turned_jpeg(data)
        return decode_process.Decoded(jpeg.height, jpeg.width, mode, turned)
    try:
        return decode_process.Decoded(*measured(data, profile))
    except ValueError:
        return None


def _here_or_there(
    data: bytes, profile: ImageProfile, name: str, found: Road | None = None
) -> Pixels:
    process, refused, _ = found or road(data)
    if refused:
        raise Refused(refused)
    if not process:
        return _from_bytes(data, profile, name)
    try:
        done = decode_process.ask(data, profile, decode=True)
    except decode_process.Failed as error:
        raise Refused(str(error).removeprefix("image bytes: ")) from None
    assert done.pixels is not None
    return done.pixels


def _measured(data: bytes, profile: ImageProfile, name: str) -> tuple[int, int, str, bool]:
    allow_pixels(profile.max_pixels)
    with open_image(data) as image:
        _check_size(image.height, image.width, profile)
        clear = "transparency" in image.info
        # What is in `info` already: looking for it in a PNG file would decode the pixels.
        turned = not profile.exif and "exif" in image.info and orientation_of(image) != 1
        return image.height, image.width, "PA" if clear else image.mode, turned


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
        # Every entry of it may name all of it.
        if any(len(image.info.get(key, "")) > _MOST_EXIF for key in _EXIF):
            return 1
        orientation = image.getexif().get(_ORIENTATION, 1)
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


def _guarded(decode: Any, source: Any, profile: ImageProfile, name: str) -> Any:
    """Calls a decoder and gives every failure one line that starts with `name`."""
    try:
        image = decode(source, profile, name)
    except Refused as error:
        raise ValueError(f"{name}: {error}") from None
    except UnidentifiedImageError as error:
        known = image_format(source[:HEAD]) if isinstance(source, bytes) else None
        raise ValueError(f"{name}: {unknown_format(known)}") from error
    # Pillow's readers raise whatever a damaged file makes them stumble over.
    except Exception as error:
        raise ValueError(f"{name}: cannot be decoded: {error}") from error
    return image


def _check_size(height: int, width: int, profile: ImageProfile) -> None:
    if not height or not width:
        raise Refused(f"the image has no pixels ({width}x{height})")
    if height * width > profile.max_pixels:
        raise Refused(
            f"{width}x{height} is {height * width:,} pixels, more than the limit of "
            f"{profile.max_pixels:,}; raise max_pixels in the profile (--max-pixels) if you trust "
            "it"
        )


def _from_bytes(data: bytes, profile: ImageProfile, name: str) -> Pixels:
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
            return rotate(image, _orientation_of_jpeg(data)) if profile.exif else image
    allow_pixels(profile.max_pixels)
    try:
        opened = open_image(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused(
            f"more pixels than Pillow takes: {error} Raise max_pixels in the profile "
            "(--max-pixels) if you trust it"
        ) from error
    with opened as image:
        return _from_pil(image, profile, name)


def open_image(data: bytes, formats: tuple[str, ...] = _FORMATS) -> Image.Image:
    """Pillow's image of the bytes of a file, by a reader of one of `formats`."""
    Image.preinit()
    known = [name for name in formats if name in Image.OPEN]
    try:
        return Image.open(io.BytesIO(data), formats=known)
    except UnidentifiedImageError:
        Image.init()
        read_by_plugin(image_format(data[:HEAD]))
        others = [name for name in formats if name in Image.OPEN and name not in known]
        if not others:
            raise
        return Image.open(io.BytesIO(data), formats=others)


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
            raise Refused("the JPEG is truncated") from error
        image = simplejpeg.decode_jpeg(data, space, fastdct=True, strict=False, **size)
    if not cmyk:
        return image
    # big_vision: TensorFlow's own conversion. Files with an Adobe marker hold inverted inks.
    inks = image.astype(np.uint16)
    if b"\xff\xee\x00\x0eAdobe" not in data:
        inks = 255 - inks
    return (inks[..., 3:] * inks[..., :3] // 255).astype(np.uint8)


def _orientation_of_jpeg(data: bytes) -> int:
    with open_image(data, ("JPEG", "MPO")) as image:
        return orientation_of(image)


def _turned_jpeg(data: bytes) -> bool:
    try:
        return _orientation_of_jpeg(data) != 1
    except Exception:  # which decoding will say
        return False


def _from_pil(image: Image.Image, profile: ImageProfile, name: str) -> Pixels:
    _check_size(image.height, image.width, profile)
    orientation = orientation_of(image) if profile.exif else 1
    try:
        image.load()
    except OSError as error:
        raise Refused(f"the image is truncated or damaged: {error}") from error
    pixels = rgb_of(image, profile)
    return rotate(array_of(pixels), orientation) if orientation != 1 else pixels
