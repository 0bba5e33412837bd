"""What each profile pins, for every released checkpoint."""

import dataclasses
import json
import subprocess
import sys

import pytest

from siglip_jax.checkpoints import CHECKPOINTS, find
from siglip_jax.preprocessing import (
    PROFILES,
    ImageProfile,
    Profile,
    TextProfile,
    custom_profile,
    profile_for,
)

V1, V2 = find("siglip_b16_224"), find("siglip2_b16_224")
NAFLEX = find("siglip2_b16_naflex")


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda checkpoint: checkpoint.name)
def test_every_checkpoint_has_every_profile(checkpoint, name):
    profile = profile_for(checkpoint, name)
    text, image = profile.text, profile.image
    assert profile.name == name
    assert text.vocabulary == checkpoint.tokenizer
    assert text.rows == checkpoint.config.text.vocab_size
    assert text.length == (16 if checkpoint.name == "siglip_so400m14_224" else 64)
    assert (text.pad, text.eos) == (1 if checkpoint.version == 1 else 0, 1)
    assert image.value_range == (-1.0, 1.0) and image.crop == 1
    assert (image.max_patches is not None) == checkpoint.config.naflex
    plain = json.loads(json.dumps(profile.to_dict()))
    assert Profile.from_dict(plain) == profile


@pytest.mark.parametrize(
    ("checkpoint", "name", "decode", "resize", "lower", "clean"),
    [
        (V1, "big_vision", "fastdct", "tf_bilinear", "ascii", "none"),
        (V2, "big_vision", "fastdct", "tf_bilinear", "ascii", "none"),
        (NAFLEX, "big_vision", "fastdct", "tf_antialias", "ascii", "none"),
        (V1, "transformers", "pillow", "torch_bicubic", "unicode", "delete_punctuation"),
        (V2, "transformers", "pillow", "torch_bilinear", "none", "none"),
        (NAFLEX, "transformers", "pillow", "torch_bilinear", "unicode", "none"),
        (V1, "open_clip", "pillow", "pil_bicubic", "unicode", "canonicalize"),
        (V2, "open_clip", "pillow", "pil_bicubic", "unicode", "canonicalize"),
        (NAFLEX, "open_clip", "pillow", "pil_bicubic", "unicode", "canonicalize"),
    ],
)
def test_what_the_systems_do(checkpoint, name, decode, resize, lower, clean):
    profile = profile_for(checkpoint, name)
    assert (profile.image.decode, profile.image.resize) == (decode, resize)
    assert (profile.text.lower, profile.text.clean) == (lower, clean)
    assert profile.image.exif == (name == "transformers")


def test_big_vision_is_the_default():
    assert profile_for(V1) == profile_for(V1, "big_vision")


def test_resolution():
    crop14 = find("siglip2_so400m14_384")
    assert profile_for(crop14).image.res == 384
    assert profile_for(crop14, "transformers").image.res == 384
    assert profile_for(crop14, "open_clip").image.res == 378
    assert profile_for(find("siglip_so400m14_384"), "open_clip").image.res == 384
    assert profile_for(NAFLEX).image.res is None
    assert profile_for(NAFLEX).image.max_patches == 256
    assert profile_for(NAFLEX, "open_clip").image.res == 256


def test_a_model_outside_the_table():
    config = V1.config.at_resolution(320)
    profile = custom_profile(config, pad=1, name="transformers")
    assert (profile.image.res, profile.image.resize) == (320, "torch_bicubic")
    assert (profile.text.vocabulary, profile.text.rows) == (None, 32_000)
    assert custom_profile(V2.config, pad=0, vocabulary="gemma") == profile_for(V2)
    with pytest.raises(ValueError, match=r"pad must be 1 \(SigLIP\) or 0 \(SigLIP 2\), got 2"):
        custom_profile(V1.config, pad=2)


@pytest.mark.parametrize(
    ("name", "near"), [("openclip", "open_clip"), ("Big-Vision", "big_vision")]
)
def test_a_wrong_name_gets_near_names(name, near):
    with pytest.raises(ValueError, match=rf"^profile must be one of .*did you mean {near}\?$"):
        profile_for(V1, name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decode": "fast_dct"}, "decode must be one of fastdct, pillow.*did you mean fastdct"),
        ({"resize": "bilinear"}, "resize must be one of .*did you mean tf_bilinear"),
        ({"resize": "tf_antialias"}, "resize tf_antialias is for NaFlex; set max_patches"),
        ({"res": None}, "res or max_patches must be given"),
        ({"res": 0}, "res must be a positive integer, got 0"),
        ({"max_pixels": 1.5}, "max_pixels must be a positive integer"),
        ({"crop": 1.5}, "crop must be above 0 and at most 1, got 1.5"),
        ({"value_range": (1, -1)}, r"value_range must be \(low, high\)"),
        ({"background": (0, 0, 256)}, "background must be three integers from 0 to 255 or None"),
    ],
)
def test_a_wrong_image_field(change, message):
    with pytest.raises(ValueError, match=f"ImageProfile: {message}"):
        dataclasses.replace(profile_for(V1).image, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lower": "ASCII"}, "lower must be one of .*did you mean ascii"),
        ({"clean": "canonicalise"}, "clean must be one of .*did you mean canonicalize"),
        ({"length": 0}, "length must be an integer of at least 1, got 0"),
        ({"pad": -1}, "pad must be an integer of at least 0, got -1"),
    ],
)
def test_a_wrong_text_field(change, message):
    with pytest.raises(ValueError, match=f"TextProfile: {message}"):
        dataclasses.replace(profile_for(V1).text, **change)


def test_from_dict_reports_every_problem():
    plain = profile_for(V1).to_dict()
    del plain["image"]["exif"]
    plain["image"]["gamma"] = 2.2
    message = r"not a preprocessing profile: image\.exif is missing, image\.gamma is unknown"
    with pytest.raises(ValueError, match=message):
        Profile.from_dict(plain)
    with pytest.raises(ValueError, match="not a preprocessing profile: expected a dict"):
        Profile.from_dict(["big_vision"])
    with pytest.raises(ValueError, match=r"text\.clean is missing"):
        Profile.from_dict({"name": "x", "image": profile_for(V1).to_dict()["image"]})


def test_to_dict_holds_every_field():
    plain = profile_for(V1).to_dict()
    assert set(plain["image"]) == {field.name for field in dataclasses.fields(ImageProfile)}
    assert set(plain["text"]) == {field.name for field in dataclasses.fields(TextProfile)}


def test_preprocessing_does_not_import_jax():
    code = "import siglip_jax.preprocessing, sys; print('jax' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
