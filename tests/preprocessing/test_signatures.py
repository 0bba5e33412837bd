"""Images are known by their first bytes, and some are read by other packages."""

import io
import sys
import types

import pytest
from pictures import encoded, scene
from PIL import Image

from siglip_jax.checkpoints import find
from siglip_jax.preprocessing import decode_image, profile_for
from siglip_jax.preprocessing.signatures import HEAD, image_format

PROFILE = profile_for(find("siglip_b16_224")).image
HEIC = b"\0\0\0\x18ftypheic" + bytes(20)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WebP", "BMP", "TIFF", "JPEG2000"])
def test_what_pillow_writes(format):
    data = encoded(Image.fromarray(scene(20, 20)), format)
    assert image_format(data[:HEAD]) == {"JPEG2000": "JPEG 2000"}.get(format, format)


@pytest.mark.parametrize(
    "data", [b"", b"BM", b"hello, hello, hello", b"{}", b"\0\0\0\x18ftypisom", bytes(16)]
)
def test_what_is_no_image(data):
    assert image_format(data[:HEAD]) is None


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"a HEIC image; to read it: pip install pillow-heif$"):
        decode_image(HEIC, PROFILE)
    with pytest.raises(ValueError, match=r"not an image in a known format$"):
        decode_image(b"hello", PROFILE)


def test_a_package_that_is_there_is_used(monkeypatch):
    """Until somebody asks, importing it would only cost time."""
    pixels = scene(20, 20)

    def register():
        Image.register_open(
            "HEIC", lambda file, name: Image.fromarray(pixels), lambda start: start == HEIC[:16]
        )

    monkeypatch.setitem(
        sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register)
    )
    try:
        assert (decode_image(HEIC, PROFILE) == pixels).all()
        with Image.open(io.BytesIO(HEIC)) as image:
            assert image.size == (20, 20)
    finally:
        Image.OPEN.pop("HEIC", None)
        Image.ID[:] = [name for name in Image.ID if name != "HEIC"]
