"""How an image becomes a square, and what its grey levels become: the fields that a folder's
own preprocessing needs. Sizes are those that torchvision and open_clip compute."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_checkpoint import CONFIG

from siglip_jax.models import value_range
from siglip_jax.preprocessing import ImageProfile, Profile, custom_profile, preprocess_image
from siglip_jax.preprocessing.images import fitted_size, to_float

PLAIN = ImageProfile(decode="pillow", resize="pil_nearest", res=4)
CLIP = dataclasses.replace(
    PLAIN, fit="shortest", value_range=((-1.5, -1.25, -1.0), (1.5, 2.0, 1.0))
)
WIDE = np.arange(4 * 9 * 3, dtype=np.uint8).reshape(4, 9, 3)


@pytest.mark.parametrize(
    ("fit", "size", "expected"),
    [
        ("squash", (480, 641), (224, 224)),
        ("shortest", (480, 641), (224, 299)),
        ("shortest", (641, 480), (299, 224)),
        ("shortest", (100, 100), (224, 224)),
        ("longest", (480, 641), (168, 224)),
        ("longest", (1, 1000), (1, 224)),
    ],
)
def test_sizes(fit, size, expected):
    assert fitted_size(*size, 224, fit) == expected


def test_shortest_crops_the_centre():
    # Of 5 columns to spare 2.5 are on the left: torchvision rounds to 2, transformers down.
    profile = dataclasses.replace(PLAIN, fit="shortest")
    np.testing.assert_array_equal(preprocess_image(WIDE, profile), WIDE[:, 2:6])
    tall, seven = WIDE.swapaxes(0, 1).copy(), WIDE[:, :7].copy()  # 3 to spare: 1.5
    np.testing.assert_array_equal(preprocess_image(tall, profile), tall[2:6])
    np.testing.assert_array_equal(preprocess_image(seven, profile), seven[:, 2:6])
    torch = dataclasses.replace(profile, resize="torch_nearest")
    np.testing.assert_array_equal(preprocess_image(seven, torch), seven[:, 1:5])


def test_longest_pads_with_the_fill_colour():
    profile = dataclasses.replace(PLAIN, fit="longest", fill=(9, 8, 7))
    made = preprocess_image(WIDE[:3, :4], profile)
    np.testing.assert_array_equal(made[:3], WIDE[:3, :4])  # the odd row is below
    np.testing.assert_array_equal(made[3], [[9, 8, 7]] * 4)


def test_a_crop_of_what_was_padded():
    profile = dataclasses.replace(PLAIN, fit="longest", crop=0.5)
    made = preprocess_image(np.full((4, 8, 3), 200, np.uint8), profile)
    assert made.shape == (4, 4, 3) and (made == 200).all()


def test_an_image_too_long_to_keep_its_aspect_ratio():
    profile = dataclasses.replace(PLAIN, fit="shortest", res=224, max_pixels=10**6)
    with pytest.raises(ValueError, match=r"of 900x1 would be resized to 201600x224, more than"):
        preprocess_image(np.zeros((1, 900, 3), np.uint8), profile)


def test_a_range_for_each_colour():
    image = np.array([[[0, 0, 0], [255, 255, 255], [51, 102, 204]]], np.uint8)
    expected = [[[-1.5, -1.25, -1], [1.5, 2, 1], [-0.9, 0.05, 0.6]]]
    made = to_float(image, CLIP.value_range)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, rtol=0, atol=2e-7)
    on_device = value_range(jnp.asarray(image[None]), *CLIP.value_range)[0]
    np.testing.assert_allclose(on_device, made, rtol=0, atol=3e-7)
    assert dataclasses.replace(CLIP, value_range=((-1,) * 3, (1, 1, 1))).value_range == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value_range": ((0, 0, 1), (1, 1, 1))}, r"value_range must be \(low, high\), numbers or"),
        ({"value_range": ((0, 0), (1, 1))}, r"value_range must be \(low, high\)"),
        ({"fit": "shortst"}, "fit must be one of .* did you mean shortest"),
        ({"fill": None}, "fill must be three integers"),
        ({"res": None, "max_patches": 9, "fit": "longest"}, "fit longest needs res"),
    ],
)
def test_wrong_fields(changes, message):
    with pytest.raises(ValueError, match=f"ImageProfile: {message}"):
        dataclasses.replace(PLAIN, **changes)


def test_a_file_from_before_there_were_these_fields():
    profile = custom_profile(CONFIG, 1)
    plain = profile.to_dict()
    assert plain["image"].pop("fit") == "squash" and plain["image"].pop("fill") == [0, 0, 0]
    assert Profile.from_dict(plain) == profile
    own = dataclasses.replace(profile, image=CLIP)
    assert own.to_dict()["image"]["value_range"] == [[-1.5, -1.25, -1.0], [1.5, 2.0, 1.0]]
    assert Profile.from_dict(own.to_dict()) == own
