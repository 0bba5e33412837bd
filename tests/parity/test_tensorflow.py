"""Decoding, resizing and lower-casing against TensorFlow itself (extra `parity`).

Committed arrays cover the same ground where TensorFlow is not installed; here it
meets sizes and photographs that nobody chose.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, scene
from PIL import Image

from siglip_jax.checkpoints import find
from siglip_jax.preprocessing import (
    clean_text,
    decode_image,
    naflex_patches,
    preprocess_image,
    profile_for,
    target_size,
    tf_resize,
    to_float,
)
from siglip_jax.preprocessing.resize import tf_antialias_resize

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow", reason="needs TensorFlow: run `make parity`")

PROFILE = profile_for(find("siglip_b16_224"))
NAFLEX = profile_for(find("siglip2_b16_naflex")).image
side = st.integers(1, 70)
picture = st.builds(
    lambda height, width, seed: np.random.default_rng(seed).integers(
        0, 256, (height, width, 3), np.uint8
    ),
    side,
    side,
    st.integers(0, 2**31),
)


def tensorflow_resize(image, *size):
    return tf.cast(tf.image.resize(image, size), tf.uint8).numpy()


def tensorflow_decode(data):
    return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()


@settings(max_examples=200, deadline=None)
@given(picture, side, side)
def test_resize(image, height, width):
    np.testing.assert_array_equal(
        tf_resize(image, height, width), tensorflow_resize(image, height, width)
    )


@settings(max_examples=200, deadline=None)
@given(picture, side, side)
def test_antialiased_resize(image, height, width):
    values = to_float(image)
    np.testing.assert_array_equal(
        tf_antialias_resize(values, height, width),
        tf.image.resize(values, (height, width), antialias=True).numpy(),
    )


@settings(deadline=None)
@given(st.text())
def test_lower_casing(text):
    text = text.encode("utf-8", "ignore").decode()
    assert clean_text(text, PROFILE.text) == tf.strings.lower(text).numpy().decode()


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF"])
def test_other_formats(form):
    data = encoded(Image.fromarray(scene(37, 53)), form)
    np.testing.assert_array_equal(decode_image(data, PROFILE.image), tensorflow_decode(data))


def test_sixteen_bit_png():
    wide = np.random.default_rng(0).integers(0, 65536, (20, 30), np.uint16)
    data = encoded(Image.fromarray(wide), "PNG")
    np.testing.assert_array_equal(decode_image(data, PROFILE.image), tensorflow_decode(data))


def photographs():
    """JPEG bytes of every colour photograph that scikit-image and scikit-learn carry."""
    found = {}
    for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        root = Path(pytest.importorskip(package).__file__).parent / folder
        for path in sorted(root.glob("*.jpg")):
            found[path.name] = path.read_bytes()
        for path in sorted(root.glob("*.png")):
            with Image.open(path) as image:
                if image.mode == "RGB" and min(image.size) > 100:
                    found[path.name] = encoded(image, "JPEG", quality=90)
    return found


def test_whole_path_on_photographs():
    files = photographs()
    assert len(files) >= 8
    for name, data in files.items():
        pixels = tensorflow_decode(data)
        np.testing.assert_array_equal(decode_image(data, PROFILE.image), pixels, err_msg=name)
        for res in (224, 384):
            np.testing.assert_array_equal(
                preprocess_image(data, PROFILE.image, res),
                tensorflow_resize(pixels, res, res),
                err_msg=name,
            )
        sequence = naflex_patches(pixels, NAFLEX, 16)
        size = target_size(*pixels.shape[:2], 16, 256)
        resized = tf.image.resize(to_float(pixels), size, antialias=True)
        tiles = tf.image.extract_patches(
            resized[None], [1, 16, 16, 1], [1, 16, 16, 1], [1, 1, 1, 1], "VALID"
        )
        golden = tiles.numpy().reshape(-1, 768)
        np.testing.assert_array_equal(sequence.patches[: len(golden)], golden, err_msg=name)
        assert sequence.type.sum() == len(golden)
