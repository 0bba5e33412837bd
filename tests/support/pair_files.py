"""Small datasets of pictures and captions, in every format that is read."""

import io
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet
from paths import FIXTURES
from pictures import encoded
from PIL import Image

from siglip_jax.preprocessing import ImageProfile, Profile, TextProfile, Tokenizer

PROFILE = Profile(
    name="tiny",
    image=ImageProfile(decode="fastdct", resize="tf_bilinear", res=16),
    text=TextProfile(
        vocabulary=None, rows=320, length=16, pad=1, eos=1, lower="ascii", clean="none"
    ),
)


def tokenizer():
    return Tokenizer(FIXTURES / "tiny.model", PROFILE.text)


def picture(number, mode="RGB"):
    """(12, 10) pixels that differ with `number`; RGBA has a transparent left half."""
    pixels = np.random.default_rng(number).integers(0, 256, (12, 10, 4), np.uint8)
    pixels[:, :5, 3], pixels[:, 5:, 3] = 0, 255
    return Image.fromarray(pixels, "RGBA").convert(mode)


def png(number, mode="RGB"):
    return encoded(picture(number, mode), "PNG")


def captions(number):
    return (f"dog {number}", f"cat {number}")


def samples(count):
    """(key, image bytes, captions), `count` of them."""
    return [(f"{n:04d}", png(n), captions(n)) for n in range(count)]


def write_parquet(path, count=7, rows=3, **columns):
    """Columns image and captions, unless others are given; `rows` in a row group."""
    made = {
        "image": [image for _, image, _ in samples(count)],
        "captions": [list(texts) for _, _, texts in samples(count)],
    }
    table = pyarrow.table({k: v for k, v in (made | columns).items() if v is not None})
    pyarrow.parquet.write_table(table, path, row_group_size=rows)
    return path


def write_tar(path, members):
    """`members`: (name, bytes)."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
