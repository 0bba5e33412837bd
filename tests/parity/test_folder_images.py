"""A folder's own preprocessing against the processors that the live libraries make of it."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_checkpoint import CONFIG, tensors, written
from torch_libraries import import_libraries
from towers import case

torch, transformers, open_clip, timm = import_libraries("transformers", "open_clip", "timm")

import siglip_jax  # noqa: E402
from siglip_jax.converters import convert  # noqa: E402
from siglip_jax.model_files import open_model  # noqa: E402
from siglip_jax.preprocessing import naflex_patches, preprocess_image  # noqa: E402
from siglip_jax.preprocessing.images import to_float  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
# With a released vocabulary's rows, whose padding is known.
WHOLE = dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, vocab_size=32_000))
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def pictures():
    rng = np.random.default_rng(0)
    sizes = ((150, 171, 3), (33, 20, 3), (301, 90, 3), (32, 32, 3), (7, 400, 3))
    return [rng.integers(0, 256, size, np.uint8) for size in sizes]


def ours(profile):
    """Our floats of each picture."""
    image = profile.image
    return [to_float(preprocess_image(p, image), image.value_range) for p in pictures()]


def same(theirs, mine):
    """Within a float's rounding, of the largest value where that is above 1."""
    for a, b in zip(theirs, mine, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1, np.abs(a).max()))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return written(tmp_path_factory.mktemp("weights") / "x.npz", tensors(WHOLE))


@pytest.fixture
def folder(tmp_path, weights):
    """A function from a format to a folder of it."""

    def make(to, **kw):
        convert(weights, tmp_path / to, to=to, config=WHOLE, pad=1, exact=to == "open_clip", **kw)
        return tmp_path / to

    return make


def changed(path, name, **settings):
    """Sets `settings` in the part `name` of a JSON file, or at its top."""
    card = json.loads(path.read_text())
    (card[name] if name else card).update(settings)
    path.write_text(json.dumps(card))


TRANSFORMERS = {
    "mean and std": IMAGENET,
    "do_normalize": {"do_normalize": False},
    "do_rescale": {"do_rescale": False, "image_mean": [120.0] * 3, "image_std": [60.0] * 3},
    "neither": {"do_rescale": False, "do_normalize": False},
    "rescale_factor": {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3},
    "bilinear": {"resample": 2},
    "lanczos": {"resample": 1},
    "nearest": {"resample": 0},
    "shortest": {
        "size": {"shortest_edge": 40},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        **IMAGENET,
    },
    "crop": {"size": {"height": 37, "width": 37}, "do_center_crop": True, "crop_size": 32},
    "a number": {"size": 37, "do_center_crop": True, "crop_size": 32},
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("settings", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_transformers(folder, settings, nested):
    path = folder("transformers")
    changed(path / "preprocessor_config.json", None, **settings)
    if nested:  # as transformers 5 saves a whole processor
        card = json.loads((path / "preprocessor_config.json").read_text())
        (path / "processor_config.json").write_text(json.dumps({"image_processor": card}))
        changed(path / "preprocessor_config.json", None, image_mean=[0.1] * 3)
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    theirs = [processor(Image.fromarray(p), return_tensors="np") for p in pictures()]
    with open_model(path) as opened:
        profile = opened.profile_named("folder")
    same([t["pixel_values"][0].transpose(1, 2, 0) for t in theirs], ours(profile))


@pytest.mark.parametrize("name", ["bicubic", "bilinear", "box", "hamming"])
def test_transformers_with_pillow(folder, name):
    path = folder("transformers")
    number = {"bicubic": 3, "bilinear": 2, "box": 4, "hamming": 5}[name]
    changed(path / "preprocessor_config.json", None, resample=number, **IMAGENET)
    processor = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
    theirs = [processor(Image.fromarray(p), return_tensors="np") for p in pictures()]
    with open_model(path) as opened:
        profile = opened.profile_named("folder")
    pillow = dataclasses.replace(profile.image, resize=f"pil_{name}")
    profile = dataclasses.replace(profile, image=pillow)
    same([t["pixel_values"][0].transpose(1, 2, 0) for t in theirs], ours(profile))


@pytest.mark.parametrize("settings", [{"max_num_patches": 9}, IMAGENET, {"resample": 3}])
def test_transformers_naflex(tmp_path, settings):
    tiny = case("naflex")
    convert(tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, tower="image")
    changed(tmp_path / "hf" / "preprocessor_config.json", None, **settings)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    with open_model(tmp_path / "hf") as opened:
        profile = opened.profile_named()
    assert profile.name == "folder"
    for picture in pictures():
        out = processor(Image.fromarray(picture), return_tensors="np")
        mine = naflex_patches(picture, profile.image, tiny.config.vision.patch)
        np.testing.assert_array_equal(out["pixel_attention_mask"][0], mine.type)
        same(out["pixel_values"], [mine.patches])


OPEN_CLIP = {
    "mean and std": {"mean": IMAGENET["image_mean"], "std": IMAGENET["image_std"]},
    "one number": {"mean": 0.4, "std": 0.3},
    "bilinear": {"interpolation": "bilinear"},
    "shortest": {"resize_mode": "shortest"},
    "longest": {"resize_mode": "longest", "fill_color": 77},
    "its trainer's defaults": None,
}


@pytest.mark.parametrize("settings", OPEN_CLIP.values(), ids=OPEN_CLIP)
def test_open_clip(folder, settings):
    path = folder("open_clip")
    card = json.loads((path / "open_clip_config.json").read_text())
    if settings is None:
        del card["preprocess_cfg"]
    else:
        card["preprocess_cfg"] |= settings
    (path / "open_clip_config.json").write_text(json.dumps(card))
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{path}")
    theirs = [transform(Image.fromarray(p)).numpy().transpose(1, 2, 0) for p in pictures()]
    with open_model(path) as opened:
        profile = opened.profile_named()
    assert profile.name == "folder"
    same(theirs, ours(profile))


TIMM = {
    "mean and std": {"mean": IMAGENET["image_mean"], "std": IMAGENET["image_std"]},
    "lanczos": {"interpolation": "lanczos"},
    "center": {"crop_pct": 0.8, "crop_mode": "center"},
    "border": {"crop_pct": 0.95, "crop_mode": "border", "mean": [0.2, 0.4, 0.6]},
    "squash": {"crop_pct": 0.875},
    "released": {"crop_pct": 0.9, "crop_mode": "center"},
}


@pytest.mark.parametrize("settings", TIMM.values(), ids=TIMM)
def test_timm(folder, settings):
    path = folder("timm")
    changed(path / "config.json", "pretrained_cfg", **settings)
    model = timm.create_model(f"local-dir:{path}", pretrained=True)
    data = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**data, is_training=False)
    theirs = [transform(Image.fromarray(p)).numpy().transpose(1, 2, 0) for p in pictures()]
    with open_model(path) as opened:
        profile = opened.profile_named("folder")
        released = settings == TIMM["released"]
        assert opened.profile_named().name == ("big_vision" if released else "folder")
    same(theirs, ours(profile))


def theirs_embedded(model, to, pixels):
    """Unit-norm embeddings of arrays (n, h, w, 3)."""
    pixels = torch.tensor(np.stack(pixels)).permute(0, 3, 1, 2)
    with torch.no_grad():
        if to == "transformers":
            z = model.eval()(pixel_values=pixels, input_ids=torch.zeros(1, 16).long()).image_embeds
        else:
            z = model.eval().encode_image(pixels, normalize=True)
    return z.numpy()


@pytest.mark.parametrize("profile", [None, "folder", "transformers"])
def test_embeddings_are_those_of_the_live_library(folder, profile):
    path = folder("transformers")
    changed(path / "preprocessor_config.json", None, **TRANSFORMERS["shortest"])
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    model = transformers.AutoModel.from_pretrained(path)
    made = [Image.fromarray(p) for p in pictures()]
    pixels = [processor(p, return_tensors="np")["pixel_values"][0] for p in made]
    theirs = theirs_embedded(model, "transformers", [p.transpose(1, 2, 0) for p in pixels])
    scorer = siglip_jax.load(path, profile=profile).scorer(tokenizer=False)
    np.testing.assert_allclose(scorer.embed_images(made), theirs, rtol=0, atol=1e-5)
    ready = jax.numpy.concatenate([scorer.preprocess(p, ready=True) for p in made])
    z, _, _ = scorer.model.apply({"params": scorer.params}, ready)
    np.testing.assert_allclose(z, theirs, rtol=0, atol=1e-5)


def test_a_round_trip_through_every_format(folder, tmp_path):
    """Own settings go from transformers through ours, open_clip and back, and mean the same."""
    path = folder("transformers")
    settings = {**IMAGENET, "resample": 2}
    changed(path / "preprocessor_config.json", None, **settings)
    chain = [("ours", "siglip_jax"), ("oc", "open_clip"), ("again", "transformers")]
    for name, to in chain:
        record = convert(path, tmp_path / name, to=to, pad=1, exact=to == "open_clip")
        assert record.preprocessing["lost"] == []
        path = tmp_path / name
    before, after = (
        transformers.AutoImageProcessor.from_pretrained(tmp_path / name)
        for name in ("transformers", "again")
    )
    for picture in pictures():
        a, b = (p(Image.fromarray(picture), return_tensors="np") for p in (before, after))
        np.testing.assert_array_equal(a["pixel_values"], b["pixel_values"])
    convert(path, tmp_path / "timm", to="timm", tower="image")
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'oc'}")
    tower = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    data = timm.data.resolve_model_data_config(tower)
    other = timm.data.create_transform(**data, is_training=False)
    for picture in pictures():
        image = Image.fromarray(picture)
        np.testing.assert_allclose(transform(image), other(image), rtol=0, atol=1e-6)
