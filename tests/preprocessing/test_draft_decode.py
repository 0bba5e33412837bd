"""JPEG files decoded at a share of their size: only where a profile says so."""

import dataclasses
import json

import command_line
import numpy as np
import pytest
from pictures import encoded, scene
from PIL import Image

from siglip_jax.checkpoints import find
from siglip_jax.preprocessing import (
    Profile,
    decode_image,
    drafted,
    preprocess_image,
    profile_for,
    tf_resize,
)

# pytest looks for fixtures among the names of a module.
cli, model, surroundings = command_line.cli, command_line.model, command_line.surroundings
EXACT = profile_for(find("siglip_b16_224"))
DRAFT = drafted(EXACT)


def jpeg(height, width, **options):
    return encoded(Image.fromarray(scene(height, width)), "JPEG", quality=90, **options)


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((446, 900), (446, 900)),  # half would be less than 224
        ((447, 900), (224, 450)),
        ((892, 1000), (446, 500)),
        ((896, 1000), (224, 250)),
        ((1795, 1793), (225, 225)),
        ((4000, 1793), (500, 225)),  # an eighth is the least
        ((100, 100), (100, 100)),
    ],
)
def test_the_smallest_size_that_still_covers_the_result(size, decoded):
    data = jpeg(*size)
    assert decode_image(data, DRAFT.image).shape == (*decoded, 3)
    assert decode_image(data, EXACT.image).shape == (*size, 3)


def test_a_picture_that_is_not_made_smaller_is_exact():
    data = jpeg(300, 400)
    np.testing.assert_array_equal(
        preprocess_image(data, DRAFT.image), preprocess_image(data, EXACT.image)
    )


def test_what_is_decoded_smaller_is_resized_as_ever():
    data = jpeg(1000, 1200)
    small = decode_image(data, DRAFT.image)
    ours = preprocess_image(data, DRAFT.image)
    np.testing.assert_array_equal(ours, tf_resize(small, 224, 224))
    # The same picture, and not the same pixels.
    exact = preprocess_image(data, EXACT.image).astype(int)
    off = np.abs(ours - exact).mean()
    assert 0 < off < np.abs(ours - exact[:, ::-1]).mean() / 4


def test_an_eighth_is_the_mean_of_eight_by_eight():
    flat = np.repeat(np.repeat(scene(30, 40), 8, axis=0), 8, axis=1)
    data = encoded(Image.fromarray(flat), "JPEG", quality=100, subsampling=0)
    image = dataclasses.replace(DRAFT.image, res=30)
    small = decode_image(data, image)
    assert np.abs(small.astype(int) - scene(30, 40)).max() <= 3


def test_the_resolution_asked_for_and_the_crop_decide():
    data = jpeg(1000, 1000)
    assert preprocess_image(data, DRAFT.image, 64).shape == (64, 64, 3)
    small = decode_image(data, dataclasses.replace(DRAFT.image, res=64))
    np.testing.assert_array_equal(preprocess_image(data, DRAFT.image, 64), tf_resize(small, 64, 64))
    # 224 / 0.875 = 256 pixels are resized to before the crop: 250 are too few.
    cropped = dataclasses.replace(DRAFT.image, crop=0.875)
    assert decode_image(data, cropped).shape == (500, 500, 3)
    assert decode_image(data, DRAFT.image).shape == (250, 250, 3)


def test_inks_truncation_and_other_formats():
    inks = encoded(Image.fromarray(scene(500, 600)).convert("CMYK"), "JPEG")
    assert decode_image(inks, DRAFT.image).shape == (250, 300, 3)
    with pytest.raises(ValueError, match="image bytes: the JPEG is truncated"):
        decode_image(jpeg(500, 600)[:9000], DRAFT.image)
    png = encoded(Image.fromarray(scene(500, 600)), "PNG")
    assert decode_image(png, DRAFT.image).shape == (500, 600, 3)


def test_the_limit_is_of_the_whole_picture():
    with pytest.raises(ValueError, match="600x500 is 300,000 pixels, more than the limit"):
        decode_image(jpeg(500, 600), dataclasses.replace(DRAFT.image, max_pixels=200_000))


def test_the_profile_says_so():
    assert EXACT.image.decode == "fastdct"
    assert (DRAFT.name, DRAFT.image.decode) == ("big_vision+draft", "draft")
    assert Profile.from_dict(DRAFT.to_dict()) == DRAFT
    assert drafted(DRAFT) == DRAFT and DRAFT != EXACT


def test_refusals():
    pillow = profile_for(find("siglip_b16_224"), "open_clip")
    with pytest.raises(ValueError, match="profile open_clip decodes with Pillow; the draft is of"):
        drafted(pillow)
    with pytest.raises(ValueError, match="decode draft needs res"):
        drafted(profile_for(find("siglip2_b16_naflex")))


@pytest.mark.usefixtures("surroundings")
def test_the_command_line_records_it(cli, model, tmp_path):
    (tmp_path / "large.jpg").write_bytes(jpeg(700, 900))

    def score(*options):
        arguments = ["large.jpg", "--model", model, "--labels", "a cat", "--json", *options]
        code, out, err = cli("score", *arguments)
        assert (code, err) == (0, [])
        got = json.loads(out)
        return got["profile"], got["images"][0]["scores"][0]["logit"]

    (plain, exact), (named, draft) = score(), score("--fast-decode")
    assert (plain, named) == ("big_vision", "big_vision+draft")
    assert draft != exact
