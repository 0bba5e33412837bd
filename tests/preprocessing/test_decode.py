"""Decoding, against TensorFlow's pixels and on every kind of file that people have."""

import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
from pictures import encoded, fixtures, scene
from PIL import Image, ImageOps

from siglip_jax.checkpoints import find
from siglip_jax.preprocessing import decode_image, preprocess_image, profile_for

BIG_VISION = profile_for(find("siglip_b16_224")).image
PILLOW = dataclasses.replace(BIG_VISION, decode="pillow")
FIXTURES = fixtures()
RGB = scene(20, 30)
PICTURE = Image.fromarray(RGB)
JPEGS = sorted({key.split("/")[1] for key in FIXTURES if key.startswith("jpeg/")})


@pytest.mark.parametrize("name", JPEGS)
def test_jpegs_decode_as_in_tensorflow_bit_for_bit(name):
    data = FIXTURES[f"jpeg/{name}/bytes"].tobytes()
    np.testing.assert_array_equal(decode_image(data, BIG_VISION), FIXTURES[f"jpeg/{name}/pixels"])
    np.testing.assert_array_equal(
        preprocess_image(data, BIG_VISION, 24), FIXTURES[f"jpeg/{name}/resize_24x24"]
    )


def test_pillow_decodes_jpegs_otherwise():
    data = FIXTURES["jpeg/colour420/bytes"].tobytes()
    pillow = decode_image(data, PILLOW).astype(int)
    assert 0 < np.abs(pillow - FIXTURES["jpeg/colour420/pixels"]).max() < 16


@pytest.mark.parametrize("profile", [BIG_VISION, PILLOW], ids=["fastdct", "pillow"])
class TestEveryKindOfPicture:
    def test_sources_agree(self, tmp_path, profile):
        data = encoded(PICTURE, "PNG")
        path = tmp_path / "a.png"
        path.write_bytes(data)
        for source in (path, str(path), data, bytearray(data), PICTURE, RGB):
            np.testing.assert_array_equal(decode_image(source, profile), RGB)

    @pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP"])
    def test_grey(self, profile, form):
        grey = PICTURE.convert("L")
        image = decode_image(
            encoded(grey, form, **({"quality": 95} if form == "JPEG" else {})), profile
        )
        assert image.shape == (20, 30, 3)
        assert (image == image[..., :1]).all()
        limit = 12 if form == "JPEG" else 0  # JPEG loses noise.
        assert np.abs(image[..., 0].astype(int) - np.asarray(grey)).max() <= limit

    def test_one_bit(self, profile):
        bits = Image.fromarray(RGB[..., 0] > 128)
        image = decode_image(encoded(bits, "PNG"), profile)
        np.testing.assert_array_equal(image[..., 1], (RGB[..., 0] > 128) * 255)

    def test_palette(self, profile):
        palette = PICTURE.quantize(16)
        image = decode_image(encoded(palette, "PNG"), profile)
        np.testing.assert_array_equal(image, np.asarray(palette.convert("RGB")))

    def test_cmyk_tiff(self, profile):
        inks = PICTURE.convert("CMYK")
        image = decode_image(encoded(inks, "TIFF"), profile)
        np.testing.assert_array_equal(image, np.asarray(inks.convert("RGB")))

    def test_cmyk_jpeg(self, profile):
        flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # Pure red.
        image = decode_image(encoded(flat, "JPEG", quality=95), profile)
        assert np.abs(image.astype(int) - (255, 0, 0)).max() <= 3

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_alpha_lies_over_the_background(self, profile, mode):
        black = Image.new(mode, (3, 1), 0)
        for x, alpha in enumerate((0, 128, 255)):
            black.putpixel((x, 0), (0, 0, 0, alpha) if mode == "RGBA" else (0, alpha))
        data = encoded(black, "PNG")
        levels = decode_image(data, profile)[0, :, 0]
        np.testing.assert_array_equal(levels, [255, 127, 0])
        red = dataclasses.replace(profile, background=(255, 0, 0))
        np.testing.assert_array_equal(decode_image(data, red)[0, 0], [255, 0, 0])
        dropped = dataclasses.replace(profile, background=None)
        assert decode_image(data, dropped).max() == 0

    def test_transparent_palette_and_colour_key(self, profile):
        palette = PICTURE.quantize(8)
        clear = np.asarray(palette) == 3
        image = decode_image(encoded(palette, "PNG", transparency=3), profile)
        assert clear.any() and (image[clear] == 255).all()
        keyed = encoded(Image.new("RGB", (4, 4), (9, 8, 7)), "PNG", transparency=(9, 8, 7))
        assert decode_image(keyed, profile).min() == 255
        gif = decode_image(encoded(palette, "GIF", transparency=3), profile)
        assert (gif[clear] == 255).all()

    def test_sixteen_bit_keeps_the_high_byte(self, profile):
        wide = np.arange(600, dtype=np.uint16).reshape(20, 30) * 109
        data = encoded(Image.fromarray(wide), "PNG")
        for source in (data, wide, Image.fromarray(wide), Image.fromarray(wide.astype(np.int32))):
            np.testing.assert_array_equal(decode_image(source, profile)[..., 2], wide >> 8)
        big_endian = encoded(Image.fromarray(wide), "TIFF")
        np.testing.assert_array_equal(decode_image(big_endian, profile)[..., 0], wide >> 8)

    def test_integers_beyond_sixteen_bits(self, profile):
        image = Image.fromarray(np.full((2, 2), 70_000, np.int32))
        with pytest.raises(ValueError, match="integer pixels from 70000 to 70000 are not 16-bit"):
            decode_image(encoded(image, "TIFF"), profile)

    def test_float_pixels(self, profile):
        image = Image.fromarray(np.zeros((2, 2), np.float32))
        with pytest.raises(ValueError, match="float pixels have no agreed range"):
            decode_image(encoded(image, "TIFF"), profile)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_rotation_is_a_choice(self, profile, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = dataclasses.replace(profile, exif=True)
        for form in ("JPEG", "PNG"):
            data = encoded(PICTURE, form, exif=exif)
            plain = decode_image(data, profile)
            assert plain.shape == (20, 30, 3)
            oriented = Image.fromarray(plain)
            oriented.getexif()[0x0112] = orientation
            np.testing.assert_array_equal(
                decode_image(data, turned), np.asarray(ImageOps.exif_transpose(oriented))
            )

    @pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
    def test_animations_give_the_first_frame(self, profile, form):
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        options = {"lossless": True} if form == "WEBP" else {}
        data = encoded(
            frames[0], form, save_all=True, append_images=frames[1:], duration=50, **options
        )
        assert Image.open(io.BytesIO(data)).n_frames == 2
        np.testing.assert_array_equal(decode_image(data, profile)[0, 0], [255, 0, 0])

    @pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
    def test_truncated_names_the_file(self, tmp_path, profile, form):
        data = encoded(Image.fromarray(scene(90, 120)), form)
        path = tmp_path / f"cut.{form.lower()}"
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match=rf"cut\.{form.lower()}: ") as raised:
            decode_image(path, profile)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("form", ["JPEG", "PNG"])
    def test_a_truncated_pillow_image_names_its_file(self, tmp_path, profile, form):
        data = encoded(Image.fromarray(scene(90, 120)), form)
        path = tmp_path / "cut"
        path.write_bytes(data[: len(data) // 2])
        with Image.open(path) as opened, pytest.raises(ValueError, match=r"cut: the image is "):
            decode_image(opened, profile)

    def test_a_jpeg_cut_in_its_header(self, profile):
        data = encoded(PICTURE, "JPEG")
        with pytest.raises(ValueError, match="image bytes: a truncated or damaged JPEG"):
            decode_image(data[:20], profile)

    def test_a_jpeg_with_stray_bytes_decodes(self, profile):
        data = encoded(PICTURE, "JPEG")
        stray = data[:-2] + b"stray" + data[-2:]
        np.testing.assert_array_equal(decode_image(stray, profile), decode_image(data, profile))

    def test_text_named_jpg(self, tmp_path, profile):
        path = tmp_path / "page.jpg"
        path.write_text("<html>404</html>")
        with pytest.raises(ValueError, match=r"page\.jpg: not an image in a known format$"):
            decode_image(path, profile)

    def test_empty_missing_and_folder(self, tmp_path, profile):
        empty = tmp_path / "empty.png"
        empty.touch()
        with pytest.raises(ValueError, match=r"empty\.png: the file is empty"):
            decode_image(empty, profile)
        with pytest.raises(ValueError, match=r"gone\.png: cannot be read: No such file"):
            decode_image(tmp_path / "gone.png", profile)
        with pytest.raises(ValueError, match="cannot be read: Is a directory"):
            decode_image(tmp_path, profile)

    @pytest.mark.parametrize("form", ["JPEG", "PNG"])
    def test_too_many_pixels(self, profile, form):
        small = dataclasses.replace(profile, max_pixels=599)
        message = "30x20 is 600 pixels, more than the limit of 599; raise max_pixels"
        with pytest.raises(ValueError, match=message):
            decode_image(encoded(PICTURE, form), small)

    def test_a_bomb_is_refused_by_its_header(self, tmp_path, profile):
        # 40,000 x 40,000 pixels claimed in a file of some hundred bytes.
        def chunk(kind, body):
            crc = zlib.crc32(kind + body)
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

        header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
        body = chunk(b"IDAT", zlib.compress(b"\0" * 64))
        path = tmp_path / "bomb.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b""))
        with pytest.raises(ValueError, match=r"bomb\.png: more pixels than Pillow takes: "):
            decode_image(path, profile)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow says so, too.
    def test_exif_that_is_damaged_is_ignored(self, profile):
        data = encoded(PICTURE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
        turned = dataclasses.replace(profile, exif=True)
        np.testing.assert_array_equal(decode_image(data, turned), decode_image(data, profile))


def test_arrays_of_other_shapes_and_types():
    np.testing.assert_array_equal(decode_image(RGB[..., 0], BIG_VISION)[..., 2], RGB[..., 0])
    np.testing.assert_array_equal(decode_image(RGB[..., :1], BIG_VISION)[..., 2], RGB[..., 0])
    clear = np.zeros((2, 2, 4), np.uint8)
    assert decode_image(clear, BIG_VISION).min() == 255
    assert decode_image(np.ones((2, 2), bool), BIG_VISION).min() == 255
    with pytest.raises(ValueError, match="uint8, uint16 or bool, got float32; scale it"):
        decode_image(np.zeros((2, 2, 3), np.float32), BIG_VISION)
    for shape in ((3, 4, 5), (2, 3, 4, 3), (0, 4, 3), (7,)):
        with pytest.raises(ValueError, match="expected an array of shape"):
            decode_image(np.zeros(shape, np.uint8), BIG_VISION)
    with pytest.raises(ValueError, match="a Pillow image or a NumPy array, got int"):
        decode_image(7, BIG_VISION)
