"""Pictures on their way to an augmentation keep their transparency, and the profile's rules."""

import dataclasses
import os

import numpy as np
import pytest
from pair_files import PROFILE, picture, png
from pictures import encoded, scene
from PIL import Image

from siglip_jax.data import Augmentation
from siglip_jax.data.examples import Preparation
from siglip_jax.data.storage import read_bytes
from siglip_jax.preprocessing import decode_image


def decoded(data, **changes):
    profile = dataclasses.replace(PROFILE.image, **changes)
    return Preparation(profile=profile, augmentation=Augmentation(flip=1)).decoded(data)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_kept(mode):
    image = picture(0, mode)
    assert decoded(encoded(image, "PNG")).tobytes() == image.convert("RGBA").tobytes()
    lossless = encoded(image.convert("RGBA"), "WEBP", lossless=True, exact=True)
    assert decoded(lossless).tobytes() == image.convert("RGBA").tobytes()


def test_a_transparent_palette_colour_is_kept():
    image = Image.new("P", (4, 2))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 1), 1)
    seen = decoded(encoded(image, "PNG", transparency=1))
    assert seen.mode == "RGBA"
    assert seen.getpixel((0, 0)) == (255, 0, 0, 255)
    assert seen.getpixel((1, 1))[3] == 0


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("decode", ["fastdct", "pillow"])
def test_others_are_decoded_as_the_profile_says(form, decode):
    data = encoded(Image.fromarray(scene(20, 30)), form)
    seen = decoded(data, decode=decode)
    expected = decode_image(data, dataclasses.replace(PROFILE.image, decode=decode))
    assert seen.mode == "RGB"
    assert np.array_equal(np.asarray(seen), expected)


def test_orientation_is_applied_where_the_profile_applies_it():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(0, "RGBA"), "PNG", exif=exif)
    assert decoded(data).size == (10, 12)
    turned = decoded(data, exif=True)
    assert turned.mode == "RGBA"
    assert turned.tobytes() == picture(0, "RGBA").transpose(Image.Transpose.ROTATE_270).tobytes()


@pytest.mark.parametrize("augmentation", [None, Augmentation(flip=1)])
def test_what_cannot_be_read_says_why(augmentation):
    profile = dataclasses.replace(PROFILE.image, max_pixels=100)
    for data, message in [
        (png(0, "RGBA"), r"^image bytes: 10x12 is 120 pixels, more than the limit of 100; "),
        (png(0)[:60], r"^image bytes: "),
        (b"", r"^image bytes: the file is empty$"),
        (b"GIF89a", r"^image bytes: "),
    ]:
        with pytest.raises(ValueError, match=message):
            Preparation(profile=profile, augmentation=augmentation).decoded(data)


def test_formats_that_are_not_meant_run_nothing_in_training_either(monkeypatch):
    """Augmentation opens images itself, to keep their transparency."""

    def run(*arguments, **options):
        raise AssertionError("a program was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    with pytest.raises(ValueError, match="not an image in a known format"):
        decoded(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n")


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "GIF"])
def test_transparency_of_every_format_is_kept_for_augmentation(form):
    picture = Image.new("RGBA", (8, 6), (9, 8, 7, 0))
    assert decoded(encoded(picture, form)).mode == "RGBA"
    assert decoded(encoded(picture.convert("RGB"), form)).mode == "RGB"


def test_a_named_pipe_is_no_image_of_a_pair(tmp_path):
    (tmp_path / "a.txt").write_text("a dog\n")
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg: cannot be read: it is no regular file"):
        read_bytes(str(tmp_path / "a.jpg"))
