"""Random changes to pictures: what they may do, and what they must leave alone."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_files import PROFILE, picture
from pictures import encoded, scene
from PIL import Image

from siglip_jax.data import Augmentation
from siglip_jax.preprocessing import decode_image, preprocess_image, resize_image

IMAGE = PROFILE.image
RES = 16
# So little that nothing moves, but by the warp that moves.
STILL = Augmentation(shift=1e-9)
BLUE = dataclasses.replace(IMAGE, background=(0, 0, 255))


def draw(augmentation, image, seed=0, profile=IMAGE, res=RES):
    return augmentation.apply(image, res, np.random.default_rng(seed), profile)


def smooth(height, width):
    return Image.fromarray(scene(height, width))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("resize", ["tf_bilinear", "pil_bicubic"])
def test_what_does_not_move_is_the_profiles_resize(mode, resize):
    profile = dataclasses.replace(BLUE, resize=resize)
    image = picture(3, mode)
    plain = preprocess_image(encoded(image, "PNG"), profile, RES)
    assert np.array_equal(draw(Augmentation(), image, profile=profile), plain)
    assert np.array_equal(draw(Augmentation(flip=1), image, profile=profile), plain[:, ::-1])
    if mode == "RGB":
        behind = Augmentation(background="random")
        assert np.array_equal(draw(behind, image, profile=profile), plain)


@pytest.mark.parametrize("size", [(16, 16), (12, 10), (18, 22), (31, 20)])
def test_a_warp_that_moves_nothing_is_big_visions_resize(size):
    image = smooth(*size)
    plain = resize_image(np.asarray(image), RES, IMAGE).astype(int)
    assert np.abs(draw(STILL, image) - plain).max() <= 1  # big_vision truncates, Pillow rounds


def test_a_warp_lays_transparent_pixels_over_the_background():
    image = picture(3, "RGBA")
    plain = preprocess_image(encoded(image, "PNG"), BLUE, RES).astype(int)
    # One rounding before the warp, or one for each of two layers after it.
    assert np.abs(draw(STILL, image, profile=BLUE) - plain).max() <= 2
    none = dataclasses.replace(IMAGE, background=None)
    plain = resize_image(decode_image(image, none), RES, none).astype(int)
    assert np.abs(draw(STILL, image, profile=none) - plain).max() <= 1


def test_large_pictures_are_averaged_before_the_warp():
    y, x = np.mgrid[:256, :192]
    checks = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    assert np.abs(draw(STILL, Image.fromarray(checks)).astype(int) - 127).max() <= 1


def test_hidden_colours_do_not_bleed_into_edges():
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[..., 1] = 255  # green wherever it is transparent
    pixels[10:30, 10:30] = 255
    moves = Augmentation(rotate=45, scale=(0.6, 1.4), shift=0.2, crop=(0.5, 1))
    for seed in range(20):
        assert draw(moves, Image.fromarray(pixels), seed).min() >= 254


def test_scale_draws_the_picture_smaller_or_larger():
    red = Image.new("RGB", (30, 20), (255, 0, 0))
    half = draw(Augmentation(scale=(0.5, 0.5)), red, profile=BLUE)
    assert (half[4:12, 4:12] == (255, 0, 0)).all()
    assert (half == (0, 0, 255)).all(-1).sum() == RES * RES - 8 * 8
    image = smooth(32, 32)
    double = draw(Augmentation(scale=(2, 2)), image).astype(int)
    middle = resize_image(np.asarray(image)[8:24, 8:24], RES, IMAGE)
    assert np.abs(double - middle).max() <= 1


def test_shift_moves_it_either_way_along_both_axes():
    red = Image.new("RGB", (RES, RES), (255, 0, 0))
    places = []
    for seed in range(60):
        seen = (draw(Augmentation(shift=0.25), red, seed, BLUE) == (255, 0, 0)).all(-1)
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        places.append([rows[0] - (15 - rows[-1]), columns[0] - (15 - columns[-1])])
    low, high = np.min(places, 0), np.max(places, 0)
    assert (low >= -4).all() and (low <= -3).all()
    assert (high <= 4).all() and (high >= 3).all()


def test_rotate_turns_about_the_middle_up_to_the_angle():
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[30:34, 50:54] = 0  # right of the middle
    angles = []
    for seed in range(60):
        ink = 255.0 - draw(Augmentation(rotate=30), Image.fromarray(pixels), seed, res=64)[..., 0]
        y, x = (np.indices((64, 64)) + 0.5 - 32).reshape(2, -1) @ ink.ravel() / ink.sum()
        assert np.hypot(x, y) == pytest.approx(20, abs=0.3)
        angles.append(np.degrees(np.arctan2(y, x)))
    assert -31 < min(angles) < -25 and 25 < max(angles) < 31


def test_crop_cuts_a_share_of_the_area_out_of_the_picture():
    y, x = np.mgrid[:128, :128]
    ramp = Image.fromarray(np.stack([x * 2, y * 2, 0 * x], -1).astype(np.uint8))
    shares, aspects = [], []
    for seed in range(100):
        seen = draw(Augmentation(crop=(0.2, 0.5)), ramp, seed, BLUE, res=64).astype(float)
        assert seen[..., 2].max() == 0  # no background: the crop is inside
        # From the first to the last pixel's middle, in pixels of the picture.
        width = (seen[32, -1, 0] - seen[32, 0, 0]) / 2 * 64 / 63
        height = (seen[-1, 32, 1] - seen[0, 32, 1]) / 2 * 64 / 63
        shares.append(width * height / 128**2)
        aspects.append(width / height)
    assert 0.18 < min(shares) < 0.25 and 0.45 < max(shares) < 0.52
    assert 0.7 < min(aspects) < 0.85 and 1.2 < max(aspects) < 1.4


def test_flip_happens_as_often_as_asked():
    image = smooth(RES, RES)
    plain = draw(Augmentation(), image)
    flipped = [
        not np.array_equal(draw(Augmentation(flip=0.3), image, n), plain) for n in range(400)
    ]
    assert 80 < sum(flipped) < 160


def test_colours_change_within_the_strength():
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    levels = np.array([draw(Augmentation(colour=0.4), grey, n)[0, 0] for n in range(200)])
    # A grey picture has no saturation and no contrast, so that only brightness shows.
    assert (levels == levels[:, :1]).all()
    assert 60 <= levels.min() < 66 and 134 < levels.max() <= 140
    pixels = np.array([[[200, 100, 50], [20, 80, 90]]], np.uint8)
    seen = [draw(Augmentation(colour=0.4), Image.fromarray(pixels), n) for n in range(50)]
    assert len({s.tobytes() for s in seen}) == 50
    spread = [int(s[0, 0, 0]) - int(s[0, 0, 2]) for s in seen]
    assert min(spread) < 110 and max(spread) > 190


def test_random_backgrounds_are_of_every_colour_plain_and_graded():
    clear = Image.new("RGBA", (20, 20), (9, 9, 9, 0))
    for augmentation in (
        Augmentation(background="random"),
        dataclasses.replace(STILL, background="random"),
    ):
        seen = np.array([draw(augmentation, clear, n) for n in range(300)]).astype(int)
        corners = seen[:, 0, 0]
        assert len(np.unique(corners, axis=0)) > 290
        assert (corners.mean(0) > 100).all() and (corners.mean(0) < 155).all()
        assert (corners.min(0) < 20).all() and (corners.max(0) > 235).all()
        plain = (seen == seen[:, :1, :1]).all((1, 2, 3))
        assert 110 < plain.sum() < 190


def test_random_backgrounds_show_only_through_what_is_transparent():
    pixels = np.zeros((RES, RES, 4), np.uint8)
    pixels[4:12, 4:12] = (10, 200, 30, 255)
    for seed in range(20):
        seen = draw(Augmentation(background="random"), Image.fromarray(pixels), seed)
        assert (seen[4:12, 4:12] == (10, 200, 30)).all()


def values(low, high):
    return st.floats(low, high, allow_subnormal=False)


@settings(deadline=None, max_examples=60)
@given(
    st.builds(
        Augmentation,
        flip=values(0, 1),
        crop=st.none() | st.tuples(values(0.01, 0.5), values(0.5, 1)),
        rotate=values(0, 180),
        scale=st.tuples(values(0.1, 1), values(1, 10)),
        shift=values(0, 1),
        colour=values(0, 1),
        background=st.sampled_from(["profile", "random"]),
    ),
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(["RGB", "RGBA"]),
)
def test_any_change_gives_a_picture_that_the_generator_decides(augmentation, seed, size, mode):
    image = picture(seed, mode).resize(size)
    before = image.tobytes()
    seen = draw(augmentation, image, seed)
    assert (seen.shape, seen.dtype) == ((RES, RES, 3), np.uint8)
    assert seen.flags.c_contiguous
    assert np.array_equal(seen, draw(augmentation, image, seed))
    assert image.tobytes() == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip": 1.5}, r"^Augmentation: flip must be a number from 0 to 1, got 1\.5$"),
        ({"flip": True}, r"flip must be a number"),
        ({"rotate": -3}, r"rotate must be a number from 0 to 180, got -3$"),
        ({"shift": "a"}, r"shift must be a number from 0 to 1, got 'a'$"),
        ({"colour": float("nan")}, r"colour must be a number from 0 to 1, got nan$"),
        ({"crop": 0.5}, r"crop must be \(low, high\) above 0 and up to 1, got 0\.5$"),
        ({"crop": (0.5, 1.5)}, r"crop must be \(low, high\) above 0 and up to 1"),
        ({"scale": (1.2, 0.8)}, r"scale must be \(low, high\) above 0 and up to 10"),
        ({"background": "noise"}, r"must be one of profile, random, either, got 'noise'$"),
    ],
)
def test_values_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**values)


def test_a_list_is_as_good_as_a_tuple():
    assert Augmentation(scale=[1, 2]) == Augmentation(scale=(1.0, 2.0))


def test_either_background_is_white_about_half_of_the_time():
    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    profile = dataclasses.replace(PROFILE.image, res=32)
    rng = np.random.default_rng(0)
    either = Augmentation(background="either")
    assert either.changes
    white = [np.all(either.apply(picture, 32, rng, profile) == 255) for _ in range(200)]
    assert 70 < sum(white) < 130
