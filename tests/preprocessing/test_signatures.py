"""Images are known by their first bytes, and some are read by other packages."""

import sys

import numpy as np
import pytest
from pictures import encoded, scene
from PIL import Image

from siglip_jax.checkpoints import find
from siglip_jax.preprocessing import decode_image, decode_process, profile_for
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


PLUGIN = """
import PIL.Image, numpy

def register_heif_opener():
    image = PIL.Image.fromarray(numpy.full((20, 20, 3), 7, numpy.uint8))
    known = lambda start: start[4:12] == b"ftypheic"
    PIL.Image.register_open("HEIF", lambda file, name: image, known)
"""


def test_a_package_that_is_there_is_used(monkeypatch, tmp_path):
    """By the process that decodes such an image; until one comes, importing it only costs time."""
    (tmp_path / "pillow_heif.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    pool = decode_process._Pool()
    monkeypatch.setattr(decode_process, "_POOL", pool)
    assert (decode_image(HEIC, PROFILE) == np.full((20, 20, 3), 7)).all()
    assert "pillow_heif" not in sys.modules
    pool.close()
