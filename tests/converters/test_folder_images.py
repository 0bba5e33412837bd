"""A folder's own preprocessing, without the library that wrote it: the numbers are those that
transformers 5.24, open_clip 3.3 and timm 1.0.31 computed from the same files."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
from tiny_checkpoint import CONFIG, tensors, written

import siglip_jax
from siglip_jax.converters import convert
from siglip_jax.errors import ModelError
from siglip_jax.model_files import open_model
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import custom_profile, preprocess_image
from siglip_jax.preprocessing.image_settings import mean_and_std
from siglip_jax.preprocessing.images import to_float
from siglip_jax.weights.tree import nested

WHOLE = dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, vocab_size=32_000))
IMAGE = (np.arange(45 * 70 * 3).reshape(45, 70, 3) * 89 % 256).astype(np.uint8)
PIXELS = ((0, 0), (13, 20), (31, 31))
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
FILES = {
    "transformers": "preprocessor_config.json",
    "open_clip": "open_clip_config.json",
    "timm": "config.json",
}
PARTS = {"transformers": None, "open_clip": "preprocess_cfg", "timm": "pretrained_cfg"}
SHORTEST = {
    "size": {"shortest_edge": 40},
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    **IMAGENET,
}
PAD = {"resize_mode": "longest", "fill_color": 77}
BORDER = {
    "crop_pct": 0.9,
    "crop_mode": "border",
    "mean": [0.2, 0.4, 0.6],
    "interpolation": "lanczos",
}
GREY, BLACK = [-0.396078] * 3, [0.0] * 3
LIVE = {
    "mean": ("transformers", IMAGENET, [[-1.998031, -0.355042, 1.419956],
             [-1.227417, -0.25, 1.524532], [-0.884922, 0.782913, 1.245664]]),
    "do_normalize": ("transformers", {"do_normalize": False}, [[0.027451, 0.376471, 0.72549],
                     [0.203922, 0.4, 0.74902], [0.282353, 0.631373, 0.686275]]),
    "resample": ("transformers", {"resample": 2}, [[-0.921569, -0.223529, 0.47451],
                 [-0.537255, -0.2, 0.498039], [-0.458824, 0.239216, 0.427451]]),
    "shortest": ("transformers", SHORTEST, [[1.238548, -1.528011, 0.2522],
                 [1.598168, -1.160364, 0.618214], [0.262437, 1.955882, -0.741264]]),
    "trainer": ("open_clip", None, [[0.076336, 1.504589, -0.769216],
                [1.477785, -0.896654, 0.59591], [0.996037, -1.391911, 0.126648]]),
    "longest": ("open_clip", PAD, [GREY, [-0.607843, -0.215686, 0.482353], GREY]),
    "border": ("timm", BORDER, [BLACK, [-0.188235, -0.015686, 0.282353], BLACK]),
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return written(tmp_path_factory.mktemp("weights") / "x.npz", tensors(WHOLE))


@pytest.fixture
def folder(tmp_path, weights):
    """A function from a format, and settings to change, to a folder of it."""

    def make(to, settings=()):
        convert(weights, tmp_path / to, to=to, config=WHOLE, pad=1, verify=False)
        change(tmp_path / to, to, settings)
        return tmp_path / to

    return make


def change(folder, to, settings):
    """Changes settings of preprocessing; None takes them all away."""
    card = json.loads((folder / FILES[to]).read_text())
    part = card[PARTS[to]] if PARTS[to] else card
    if settings is None:
        del card[PARTS[to]]
    else:
        part.update(settings)
    (folder / FILES[to]).write_text(json.dumps(card))


def floats(profile):
    return to_float(preprocess_image(IMAGE, profile.image), profile.image.value_range)


@pytest.mark.parametrize(("to", "settings", "expected"), LIVE.values(), ids=LIVE)
def test_pixels_of_the_live_library(folder, to, settings, expected):
    with open_model(folder(to, settings)) as opened:
        profile, note = opened.profile_named(), opened.profile_note()
        assert profile == opened.profile_named("folder")
    assert profile.name == "folder" and "is followed, whose settings are not those" in note
    found = [floats(profile)[at] for at in PIXELS]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("to", FILES)
def test_released_settings_leave_big_vision_as_the_default(folder, to):
    path = folder(to)
    with open_model(path) as opened:
        assert opened.profile_named() == opened.profile_named("big_vision")
        assert [opened.profile_note(n) for n in (None, "big_vision", "folder")] == [None] * 3
        system = "transformers" if to == "transformers" else "open_clip"
        stated = dataclasses.replace(opened.profile_named("folder"), name=system)
        assert stated == opened.profile_named(system)
    if to == "timm":
        change(path, to, {"crop_pct": 0.9, "crop_mode": "center"})  # as timm released them
        with open_model(path) as opened:
            assert opened.profile_named().name == "big_vision"
            assert opened.profile_named("folder").image.fit == "shortest"


def test_one_warning_names_every_setting(folder):
    path = folder("transformers", SHORTEST)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = siglip_jax.load(path)
    (warning,) = caught
    assert model.profile.name == "folder"
    assert str(warning.message) == (
        f"{path}: {path}/preprocessor_config.json is followed, whose settings are not those of "
        "the released weights: fit shortest (released: squash), crop 32 of 40 (released: none), "
        "mean 0.485 0.456 0.406 (released: 0.5), std 0.229 0.224 0.225 (released: 0.5); "
        "profile folder says so, profile big_vision leaves them aside"
    )
    with pytest.warns(UserWarning, match=r"profile big_vision leaves aside what .*config\.json"):
        assert siglip_jax.load(path, profile="big_vision").profile.name == "big_vision"
    with pytest.warns(UserWarning, match=r"profile open_clip .*: fit shortest \(open_clip: squash"):
        siglip_jax.load(path, profile="open_clip")
    for name in ("folder", "transformers"):  # as it reads its own folder: without a word
        loaded = siglip_jax.load(path, profile=name).profile
        assert (loaded.name, loaded.image) == (name, model.profile.image)


def test_what_transformers_5_nests_goes_first(folder):
    path = folder("transformers", IMAGENET)
    card = json.loads((path / "preprocessor_config.json").read_text())
    card["image_mean"] = [0.25] * 3
    (path / "processor_config.json").write_text(json.dumps({"image_processor": card}))
    with open_model(path) as opened:
        mean, _ = mean_and_std(opened.profile_named().image.value_range)
        assert mean == [0.25] * 3
        assert opened.images.file.name == "processor_config.json"
        assert {file.name for file in opened.files} >= {"processor_config.json"}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"do_resize": False}, "do_resize is false: images would have to come in the model's own"),
        ({"resample": 9}, "resample is 9, none of 0, 1, 2, 3, 4, 5"),
        ({"size": {"height": 32, "width": 40}}, "size is .*, which is no square"),
        ({"size": 32}, "size is .*, which is no square without a crop"),
        ({"image_std": [0, 0, 0]}, "float division by zero"),
        ({"image_mean": [0.5, 0.5]}, "a mean or std of 2 numbers"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "Siglip2ImageProcessor, another mod"),
    ],
)
def test_what_cannot_be_followed(folder, tmp_path, settings, problem):
    path = folder("transformers", settings)
    with open_model(path) as opened:
        for name in (None, "folder", "transformers"):
            message = rf"preprocessor_config\.json: .*{problem}.*; pass profile=\"big_vision\""
            with pytest.raises(ModelError, match=message):
                opened.profile_named(name)
        assert opened.profile_named("big_vision").name == "big_vision"
        assert "profile big_vision leaves aside" in opened.profile_note("big_vision")
    record = convert(path, tmp_path / "x.npz", to="npz")
    assert any("does not do and cannot keep" in note for note in record.notes)


def test_a_folder_that_says_nothing(folder):
    path = folder("transformers")
    (path / "preprocessor_config.json").unlink()
    with open_model(path) as opened:
        assert opened.profile_named().name == "big_vision" and opened.profile_note() is None
        with pytest.raises(ModelError, match="does not say how its images are prepared; pass prof"):
            opened.profile_named("folder")


def test_another_size_than_the_models(folder):
    with open_model(folder("transformers", {"size": {"height": 48, "width": 48}})) as opened:
        assert opened.profile_named().image.res == 32
        assert "res 48 (released: 32)" in opened.profile_note()
        assert opened.profile_named(res=48).image.res == 48


@pytest.fixture
def own(tmp_path):
    """A folder of ours with the profile that it was trained with."""
    profile = custom_profile(WHOLE, 1)
    image = dataclasses.replace(profile.image, value_range=(0.0, 1.0), crop=0.875)
    text = dataclasses.replace(profile.text, lower="unicode")
    profile = dataclasses.replace(profile, name="custom", image=image, text=text)
    params = nested(tensors(WHOLE))
    return siglip_jax.save(tmp_path / "own", SiglipModel(WHOLE), params, profile=profile), profile


def test_a_profile_acts_on_a_folder_of_ours(own):
    path, profile = own
    with open_model(path) as opened:
        assert opened.profile_named() == opened.profile_named("folder") == profile
        assert opened.profile_note() is None
        assert opened.profile_named("transformers") == custom_profile(WHOLE, 1, "transformers")
        assert opened.profile_note("transformers") == (
            f"profile transformers leaves aside what {path}/siglip_jax.json says: crop 32 of "
            "36 (transformers: none), mean 0 (transformers: 0.5), std 1 (transformers: 0.5)"
        )
        assert "lower unicode (big_vision: ascii)" in opened.profile_note("big_vision")
        with pytest.raises(
            ValueError, match=r"^profile must be one of .*did you mean open_clip\?$"
        ):
            opened.profile_named("openclip")


def test_conversions_keep_a_profile_of_ours(own, tmp_path):
    path, profile = own
    convert(path, tmp_path / "again", to="siglip_jax", pad=0)
    with open_model(tmp_path / "again") as opened:
        # --pad changes how texts are padded, and nothing else.
        text = dataclasses.replace(profile.text, pad=0)
        assert opened.profile == dataclasses.replace(profile, text=text)
    record = convert(path, tmp_path / "hf", to="transformers")
    card = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert (card["image_mean"], card["image_std"]) == ([0] * 3, [1] * 3)
    assert (card["size"]["height"], card["crop_size"]["height"]) == (36, 32)
    assert record.preprocessing["lost"] == ["resize"]  # without antialias
    (lost,) = (note for note in record.notes if "cannot say" in note)
    assert "resize tf_bilinear (torch_bilinear)" in lost


ROADS = [("siglip_jax",), ("open_clip",), ("siglip_jax", "open_clip", "siglip_jax"), ("timm",)]


@pytest.mark.parametrize("road", ROADS, ids="-".join)
@pytest.mark.parametrize("settings", [IMAGENET, {"resample": 2}, {"do_normalize": False}])
def test_round_trips_keep_settings(folder, tmp_path, road, settings):
    path = folder("transformers", settings)
    with open_model(path) as opened:
        before = opened.images
    for index, to in enumerate((*road, "transformers")):
        record = convert(path, tmp_path / f"{index}", to=to, pad=1)
        assert record.preprocessing["lost"] == []
        assert list(record.preprocessing["settings"]) >= before.changed
        path = tmp_path / f"{index}"
    certificate = json.loads((path / "conversion.json").read_text())
    assert certificate["preprocessing"] == record.preprocessing
    with open_model(path) as opened:
        assert opened.images.said == before.said


@pytest.mark.parametrize(
    ("to", "settings", "target", "lost"),
    [
        ("transformers", IMAGENET, "npz", ["mean", "std"]),
        ("open_clip", PAD, "transformers", ["fit", "fill"]),
        ("timm", BORDER, "transformers", ["fit", "fill"]),
        ("transformers", {**SHORTEST, "resample": 1}, "open_clip", ["crop", "resize"]),
    ],
)
def test_what_a_format_cannot_say_is_said(folder, tmp_path, to, settings, target, lost):
    path = folder(to, settings)
    record = convert(path, tmp_path / f"out.{target}", to=target, pad=1)
    assert record.preprocessing["lost"] == lost
    said = " ".join(note for note in record.notes if f"{target} cannot say" in note)
    assert all(f"{name} " in said for name in lost)
