"""Images of strangers: only formats that are meant, in time and memory that are known."""

import io
import os
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from pictures import encoded, scene
from PIL import Image

from siglip_jax.checkpoints import find
from siglip_jax.preprocessing import decode_image, decode_process, profile_for
from siglip_jax.preprocessing.picture_cost import road, scans

PROFILE = profile_for(find("siglip_b16_224")).image
RGB = scene(20, 30)
PICTURE = Image.fromarray(RGB)
QUICK = {"JPEG": {}, "PNG": {}, "BMP": {}, "WEBP": {"lossless": True}}
OTHERS = ("GIF", "TIFF", "PPM", "ICO", "AVIF", "MPO")


def test_the_formats_that_are_meant():
    for form, options in QUICK.items():
        assert road(encoded(PICTURE, form, **options))[:2] == (False, None)
    for form in OTHERS:
        data = encoded(PICTURE, form)
        assert road(data)[:2] == (form != "MPO", None)  # a JPEG
        assert decode_image(data, PROFILE).shape[2] == 3


@pytest.mark.parametrize("form", ["TIFF", "PPM"])
def test_a_process_decodes_as_a_thread_would(form):
    np.testing.assert_array_equal(decode_image(encoded(PICTURE, form), PROFILE), RGB)


@pytest.mark.parametrize("form", ["TIFF", "GIF", "PNG"])
def test_what_is_wrong_is_said_alike(form, tmp_path):
    path = tmp_path / "a.jpg"
    data = encoded(PICTURE, form)
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ValueError, match=rf"^{path}: ") as error:
        decode_image(path, PROFILE)
    assert "image bytes" not in str(error.value) and "\n" not in str(error.value)


FOREIGN = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n{} loop\n",
    "PostScript in DOS": b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 32, 60, 0, 0, 0, 0) + bytes(80),
    "PDF": b"%PDF-1.7\n",
    "FITS": b"SIMPLE  =                    T".ljust(2880),
    "PSD": b"8BPS\0\1" + bytes(60),
    "ICNS": b"icns" + bytes(60),
    "SGI": b"\x01\xda\0\1" + bytes(600),
    "XPM": b"/* XPM */\nstatic char *x[] = {\n",
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(80),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "QOI": b"qoif" + bytes(20),
    "DDS": b"DDS " + bytes(124),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),
    "CUR": b"\0\0\2\0\1\0" + bytes(60),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_formats_that_are_not(tmp_path, monkeypatch, name):
    """Nothing runs: neither a reader of Pillow, nor Ghostscript, nor a process of ours."""
    canary = tmp_path / "CANARY"
    gs = tmp_path / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {canary}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "holiday.jpg"
    path.write_bytes(FOREIGN[name])
    with pytest.raises(ValueError, match=r"not an image in a known format|is not read"):
        decode_image(path, PROFILE)
    assert not canary.exists()


def with_scans(size, count):
    """A progressive JPEG whose last scan comes `count` times."""
    data = encoded(Image.new("L", (size, size), 100), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * count + data[-2:]


def test_scans_of_a_jpeg_are_limited():
    plain = encoded(PICTURE, "JPEG", progressive=True)
    assert 5 <= scans(plain).count <= 15
    assert scans(encoded(PICTURE, "JPEG"))[:4] == (1, 20, 30, 3)
    assert scans(encoded(PICTURE.convert("CMYK"), "JPEG"))[:4] == (1, 20, 30, 4)
    assert plain[scans(plain).begin :].count(b"\xff\xda") == scans(plain).count - 1
    data = with_scans(64, 500)
    assert scans(data).count > 500
    with pytest.raises(ValueError, match=r"a JPEG of 50\d scans, more than the limit of 100"):
        decode_image(data, PROFILE)
    for profile in (PROFILE,):
        assert decode_image(with_scans(64, 50), profile).shape == (64, 64, 3)


@pytest.mark.parametrize("hidden", ["padding", "garbage", "comment", "false end"])
def test_scans_are_counted_as_libjpeg_finds_them(hidden):
    data = with_scans(64, 300)
    more = {
        "padding": b"\xff" * 9,
        "garbage": b"abc",
        "comment": b"\xff\xfe\0\x06\xff\xd9\xff\xd9",
        "false end": b"\xff\xfe\0\x04\xff\xd9",
    }[hidden]
    places = [data.index(b"\xff\xdb"), data.index(b"\xff\xda"), data.rindex(b"\xff\xda")]
    for at in places:
        with pytest.raises(ValueError, match="scans, more than the limit"):
            decode_image(data[:at] + more + data[at:], PROFILE)


def test_what_follows_the_end_of_a_jpeg_is_no_scan():
    data = encoded(PICTURE, "JPEG", progressive=True)
    assert scans(data + b"\xff\xda\0\x08" * 500) == scans(data)
    np.testing.assert_array_equal(
        decode_image(data + b"\xff\xda" * 500, PROFILE), decode_image(data, PROFILE)
    )


def test_a_sequential_jpeg_of_many_scans():
    data = encoded(PICTURE, "JPEG")
    frame = data.index(b"\xff\xc0")
    assert data[frame + 9] == 3
    # One component a scan: libjpeg reads on to the end.
    start = data.index(b"\xff\xda")
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0" + b"\0" * 8
    with pytest.raises(ValueError, match="scans, more than the limit"):
        decode_image(data[:start] + scan * 200 + b"\xff\xd9", PROFILE)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_markers_and_chunks_without_end_go_to_a_process():
    data = encoded(PICTURE, "JPEG")
    many = data[:2] + b"\xff\xfe\0\2" * 20_000 + data[2:]
    assert road(many).process
    np.testing.assert_array_equal(decode_image(many, PROFILE), decode_image(data, PROFILE))
    data = encoded(PICTURE, "PNG")
    assert road(data[:33] + png_chunk(b"teXt", b"") * 60_000 + data[33:]).process


def test_a_decoding_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(
        decode_process,
        "_PROGRAM",
        "from siglip_jax.preprocessing.decode_server import serve; serve(0.5)",
    )
    pool = decode_process._Pool()
    monkeypatch.setattr(decode_process, "_POOL", pool)
    # Plain text of numbers, which Pillow reads in a loop in Python.
    slow = b"P3 3000 3000 255\n" + b"1 " * (3 * 3000 * 3000)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"a\.ppm: decoding it took more than 10 seconds and was"):
        decode_image_named(slow)
    assert time.monotonic() - start < 60
    # The next is done by another process.
    np.testing.assert_array_equal(decode_image(encoded(PICTURE, "PPM"), PROFILE), RGB)
    pool.close()


def decode_image_named(data):
    try:
        return decode_image(data, PROFILE)
    except ValueError as error:
        raise ValueError(str(error).replace("image bytes", "a.ppm")) from error


def test_a_process_that_dies_is_an_error_of_its_file(monkeypatch):
    monkeypatch.setattr(decode_process, "_PROGRAM", "import sys; sys.stdin.readline(); sys.exit(3)")
    pool = decode_process._Pool()
    monkeypatch.setattr(decode_process, "_POOL", pool)
    with pytest.raises(ValueError, match=r"ended the process that did \(exit code 3\)"):
        decode_image(encoded(PICTURE, "TIFF"), PROFILE)
    assert pool.idle == []


def test_many_threads_share_a_few_processes():
    data, done = encoded(PICTURE, "TIFF"), []
    threads = [
        threading.Thread(target=lambda: done.append(decode_image(data, PROFILE))) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 12 and all((pixels == RGB).all() for pixels in done)
    assert len(decode_process._POOL.idle) <= (os.cpu_count() or 1)


def tiff_of_many_tags(size=1 << 20):
    """Every one of 60,000 tags says that its value is the whole file."""
    count = 60_000
    tags = b"".join(struct.pack("<HHII", i + 1000, 1, size, 8) for i in range(count))
    data = b"II*\0" + struct.pack("<I", size + 8) + bytes(size)
    return data + struct.pack("<H", count) + tags + bytes(4)


def test_tags_of_a_tiff_that_all_name_the_whole_file():
    with pytest.raises(ValueError) as error:
        decode_image(tiff_of_many_tags(), PROFILE)
    assert "\n" not in str(error.value)


def test_orientation_of_metadata_that_is_too_large():
    data = encoded(PICTURE, "PNG", exif=b"Exif\0\0II*\0" + bytes(300_000))
    profile = profile_for(find("siglip_b16_224"), "transformers").image
    assert profile.exif
    np.testing.assert_array_equal(decode_image(data, profile), RGB)


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "large"])
def test_only_regular_files_of_a_size_that_fits(tmp_path, what):
    path = tmp_path / "a.jpg"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(3 << 30)
    said = {"folder": "Is a directory", "large": "it has 3,221,225,472 bytes, more than the 1,073"}
    with pytest.raises(ValueError, match=f"a.jpg: .*{said.get(what, 'it is no regular file')}"):
        decode_image(path, PROFILE)


def test_pillows_own_limits_are_in_force():
    """They are what bounds the text in a PNG."""
    from PIL import PngImagePlugin

    assert PngImagePlugin.MAX_TEXT_CHUNK <= 1 << 20
    assert PngImagePlugin.MAX_TEXT_MEMORY <= 64 << 20
    bomb = zlib.compress(bytes(100 << 20))
    data = encoded(PICTURE, "PNG")
    data = data[:33] + png_chunk(b"zTXt", b"a\0\0" + bomb) + data[33:]
    with pytest.raises(ValueError):
        decode_image(data, PROFILE)
    assert Image.open(io.BytesIO(encoded(PICTURE, "PNG"))).size == (30, 20)
