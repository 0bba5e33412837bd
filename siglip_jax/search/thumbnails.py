"""Small images for people to look at: of a sheet, or of a page in a browser."""

import io

from PIL import Image

from siglip_jax.preprocessing.decode import decode_image
from siglip_jax.preprocessing.profiles import ImageProfile

# For people: transparent parts on white, images turned as their cameras say. Nothing is
# resized by it; `res` is what the profile of a fixed resolution must state.
_SEEN = ImageProfile(
    decode="fastdct", resize="tf_bilinear", res=224, background=(255, 255, 255), exif=True
)


def thumbnail(image: bytes | str, side: int) -> Image.Image:
    """An image, RGB, at most `side` pixels wide and high.

    Args:
      image: the bytes of a file, or its path.

    Raises:
      ValueError: if it cannot be read.

    >>> stream = io.BytesIO()
    >>> Image.new("RGB", (400, 200)).save(stream, "PNG")
    >>> thumbnail(stream.getvalue(), 100).size
    (100, 50)
    """
    made = Image.fromarray(decode_image(image, _SEEN))
    made.thumbnail((side, side))
    return made


def jpeg(image: Image.Image) -> bytes:
    """A JPEG file of an image's pixels, and of nothing else that its file may have held."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()
