"""Fixed-resolution resizing and normalising, against the arrays of three systems."""

import dataclasses

import numpy as np
import pytest
from pictures import encoded, fixtures, goldens, needs_goldens, scene
from PIL import Image

from siglip_jax.checkpoints import find
from siglip_jax.preprocessing import (
    decode_image,
    preprocess_image,
    profile_for,
    resize_image,
    tf_resize,
    to_float,
)
from siglip_jax.preprocessing.decode import decoded
from siglip_jax.preprocessing.pixels import array_of
from siglip_jax.preprocessing.resize import bilinear_taps

V1, V2 = find("siglip_b16_224"), find("siglip2_b16_224")
BIG_VISION = profile_for(V1).image
FIXTURES = fixtures()
RGB = scene(20, 30)

# One grey level on the scale from -1 to 1, with float32 room for the subtraction.
GREY_LEVEL = (1 + 1e-4) / 127.5


@pytest.mark.parametrize("name", ["wide", "tall", "tiny"])
@pytest.mark.parametrize("size", [(32, 32), (28, 51), (56, 56)])
def test_resize_is_tensorflows_bit_for_bit(name, size):
    golden = FIXTURES[f"{name}/resize_{size[0]}x{size[1]}"]
    np.testing.assert_array_equal(tf_resize(FIXTURES[f"{name}/in"], *size), golden)


def test_no_caller_can_change_the_sampling_positions_of_the_next():
    for array in bilinear_taps(30, 7):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize("name", ["wide", "tall", "tiny"])
def test_values_are_big_visions_bit_for_bit(name):
    values = to_float(preprocess_image(FIXTURES[f"{name}/in"], BIG_VISION, 32))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, FIXTURES[f"{name}/value_range_32"])


@needs_goldens
@pytest.mark.parametrize("res", [32, 56])
@pytest.mark.parametrize("index", range(6))
def test_shared_goldens(index, res):
    arrays = goldens()
    image = arrays[f"{index}/in"]

    def values(checkpoint, name):
        return to_float(preprocess_image(image, profile_for(checkpoint, name).image, res))

    np.testing.assert_array_equal(values(V1, "big_vision"), arrays[f"{index}/big_vision_{res}"])
    for checkpoint, name, golden in (
        (V1, "open_clip", "open_clip"),
        (V2, "open_clip", "open_clip"),
        (V1, "transformers", "transformers_bicubic"),
        (V2, "transformers", "transformers_bilinear"),
    ):
        np.testing.assert_allclose(
            values(checkpoint, name), arrays[f"{index}/{golden}_{res}"], rtol=0, atol=GREY_LEVEL
        )


def cubic_matrix(size, out):
    """Antialiased bicubic weights (out, size) of one axis, in float64."""
    scale = max(size / out, 1)
    centre = (np.arange(out)[:, None] + 0.5) * size / out
    x = np.abs(np.arange(size) + 0.5 - centre) / scale
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def test_torchvision_rounds_after_filtering_across():
    # Taller than the result and narrower: Pillow by itself would filter down first.
    image = np.random.default_rng(0).integers(0, 256, (61, 47, 3), np.uint8)
    across = np.einsum("ow,hwc->hoc", cubic_matrix(47, 56), image).round().clip(0, 255)
    expected = np.einsum("oh,hwc->owc", cubic_matrix(61, 56), across).round().clip(0, 255)
    ours = preprocess_image(image, profile_for(V1, "transformers").image, 56)
    assert np.abs(ours - expected).max() <= 1


def test_resize_to_the_same_size_changes_nothing():
    np.testing.assert_array_equal(tf_resize(RGB, *RGB.shape[:2]), RGB)


def test_one_colour_stays_that_colour():
    white = np.full((37, 91, 3), 255, np.uint8)
    assert tf_resize(white, 64, 29).min() == 255


@pytest.mark.parametrize("name", ["wide", "tall", "tiny"])
def test_central_crop_is_big_visions(name):
    profile = dataclasses.replace(BIG_VISION, crop=0.875, res=28)
    cropped = preprocess_image(FIXTURES[f"{name}/in"], profile)
    np.testing.assert_array_equal(cropped, FIXTURES[f"{name}/square875_28"])


def test_the_profile_states_the_resolution():
    assert preprocess_image(RGB, BIG_VISION).shape == (224, 224, 3)
    assert resize_image(RGB, 48, BIG_VISION).shape == (48, 48, 3)
    naflex = profile_for(find("siglip2_b16_naflex")).image
    with pytest.raises(ValueError, match="keeps aspect ratios"):
        preprocess_image(RGB, naflex)
    with pytest.raises(ValueError, match="resize tf_antialias gives floats; use naflex_patches"):
        preprocess_image(RGB, naflex, 32)


def test_to_float_takes_uint8_only_and_any_range():
    np.testing.assert_array_equal(to_float(np.array([0, 255], np.uint8), (0, 1)), [0, 1])
    with pytest.raises(ValueError, match="expected uint8 pixels, got float64"):
        to_float(np.zeros((2, 2, 3)))


@pytest.mark.parametrize("name", ["big_vision", "transformers", "open_clip"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "I;16"])
def test_pixels_in_pillows_memory_are_resized_as_an_array_is(name, mode):
    profile = profile_for(V1, name).image
    picture = Image.fromarray(scene(70, 90))
    if mode == "I;16":
        picture = Image.fromarray(np.arange(70 * 90, dtype=np.uint16).reshape(70, 90) * 10)
    data = encoded(picture.convert(mode) if mode != "I;16" else picture,
                   "JPEG" if mode == "CMYK" else "PNG")  # fmt: skip
    pixels = decoded(data, profile)
    assert isinstance(pixels, Image.Image) == (
        mode != "I;16" and not (mode == "CMYK" and name == "big_vision")
    )
    np.testing.assert_array_equal(array_of(pixels), decode_image(data, profile))
    for fit in ("squash", "shortest", "longest"):
        fitted = dataclasses.replace(profile, fit=fit)
        np.testing.assert_array_equal(
            resize_image(pixels, 32, fitted), resize_image(array_of(pixels), 32, fitted)
        )


def test_what_is_given_is_not_what_comes_back():
    picture = Image.fromarray(scene(8, 8))
    decode_image(picture, BIG_VISION)[:] = 0
    np.testing.assert_array_equal(np.asarray(picture), scene(8, 8))
