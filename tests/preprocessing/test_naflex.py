"""NaFlex sequences, against big_vision's and transformers' arrays."""

import dataclasses

import numpy as np
import pytest
from pictures import fixtures, goldens, needs_goldens, scene

from siglip_jax.checkpoints import find
from siglip_jax.preprocessing import (
    naflex_patches,
    preprocess_image,
    profile_for,
    target_size,
    to_float,
)
from siglip_jax.preprocessing.resize import tf_antialias_resize

CHECKPOINT = find("siglip2_b16_naflex")
BIG_VISION = profile_for(CHECKPOINT).image
TRANSFORMERS = profile_for(CHECKPOINT, "transformers").image
FIXTURES = fixtures()

# One grey level on the scale from -1 to 1, with float32 room for the subtraction.
GREY_LEVEL = (1 + 1e-4) / 127.5


@pytest.mark.parametrize("length", [9, 20])
@pytest.mark.parametrize("name", ["wide", "tall", "tiny"])
def test_sequences_are_big_visions_bit_for_bit(name, length):
    sequence = naflex_patches(FIXTURES[f"{name}/in"], BIG_VISION, 8, length)
    for field, dtype in zip(sequence._fields, ("f4", "i4", "i4", "i4"), strict=True):
        golden = FIXTURES[f"{name}/naflex{length}/{field}"]
        assert getattr(sequence, field).dtype == golden.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(getattr(sequence, field), golden, err_msg=field)


def test_target_sizes_are_big_visions():
    found = [target_size(*size) for size in FIXTURES["sizes"].tolist()]
    np.testing.assert_array_equal(found, FIXTURES["targets"])


@needs_goldens
@pytest.mark.parametrize("length", [16, 25])
@pytest.mark.parametrize("index", range(6))
def test_shared_goldens(index, length):
    arrays = goldens()
    image, key = arrays[f"{index}/in"], f"{index}/naflex{length}"
    ours = naflex_patches(image, BIG_VISION, 8, length)
    for field in ours._fields:
        np.testing.assert_array_equal(getattr(ours, field), arrays[f"{key}/{field}"])
    theirs = naflex_patches(image, TRANSFORMERS, 8, length)
    np.testing.assert_allclose(
        theirs.patches, arrays[f"{key}/transformers_pixel_values"], rtol=0, atol=GREY_LEVEL
    )
    rows, columns = arrays[f"{key}/transformers_spatial_shape"]
    for sequence in (ours, theirs):
        assert sequence.type.sum() == rows * columns
        assert (sequence.yidx.max() + 1, sequence.xidx.max() + 1) == (rows, columns)


def test_a_full_square_grid_is_the_picture_in_patches():
    image = scene(32, 32)
    sequence = naflex_patches(image, BIG_VISION, patch=8, max_patches=16)
    assert (sequence.type == 1).all()
    for patch, y, x in zip(sequence.patches, sequence.yidx, sequence.xidx, strict=True):
        tile = to_float(image)[8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
        np.testing.assert_array_equal(patch, tile.reshape(-1))


def test_open_clip_squashes_to_a_square():
    profile = profile_for(CHECKPOINT, "open_clip").image
    image = scene(50, 90)
    sequence = naflex_patches(image, profile, patch=16)
    assert (sequence.yidx.max(), sequence.xidx.max()) == (15, 15)
    square = to_float(preprocess_image(image, profile))
    np.testing.assert_array_equal(sequence.patches[17], square[16:32, 16:32].reshape(-1))


def test_the_profile_states_the_length():
    assert naflex_patches(scene(30, 30), BIG_VISION, 16).patches.shape == (256, 768)
    fixed = profile_for(find("siglip2_b16_224")).image
    with pytest.raises(ValueError, match="fixed resolution; give max_patches"):
        naflex_patches(scene(30, 30), fixed, 16)
    square = dataclasses.replace(TRANSFORMERS, res=256)
    with pytest.raises(ValueError, match="16x16 patches do not fit into 100"):
        naflex_patches(scene(30, 30), square, 16, 100)


def test_a_picture_too_long_for_any_scale():
    with pytest.raises(ValueError, match="10000000x1 does not fit into 4 patches of 16"):
        target_size(1, 10_000_000, 16, 4)


def test_antialiased_resize_of_one_colour():
    flat = np.full((90, 31, 3), 0.25, np.float32)
    resized = tf_antialias_resize(flat, 17, 44)
    np.testing.assert_allclose(resized, 0.25, rtol=3e-7)  # Weights sum to 1 within rounding.
    with pytest.raises(ValueError, match="expected float32 pixels, got uint8"):
        tf_antialias_resize(scene(4, 4), 2, 2)
