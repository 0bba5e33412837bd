"""Towers alone, headless, and inside other models: the layouts that libraries write, by hand."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
from towers import case

import siglip_jax
from siglip_jax.config import Siglip
from siglip_jax.converters import convert, open_checkpoint
from siglip_jax.converters.loop_form import LoopForm
from siglip_jax.preprocessing import custom_profile
from siglip_jax.weights.npz import write_npz
from siglip_jax.weights.tree import flatten

HEAD = ("head.", "attn_pool.")


@pytest.fixture
def stored(tmp_path):
    """(tensors, configuration) of the golden model in a format."""

    def make(form, name="loop"):
        tiny = case(name)
        tower = "image" if form == "timm" else None
        folder = tmp_path / f"{form}-{name}"
        convert(tiny.path, folder, to=form, config=tiny.config, pad=1, tower=tower)
        (file,) = folder.glob("*.safetensors")
        card = {"open_clip": "open_clip_config.json"}.get(form, "config.json")
        return safetensors.numpy.load_file(file), json.loads((folder / card).read_text()), tiny

    return make


def written(folder, tensors, card=None, file="model.safetensors"):
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / file)
    if card is not None:
        (folder / "config.json").write_text(json.dumps(card))
    return folder


def renamed(tensors, old, new, head=True):
    return {
        new + name.removeprefix(old): array
        for name, array in tensors.items()
        if name.startswith(old) and (head or not name.removeprefix(old).startswith(HEAD))
    }


def same(path, tiny, *, prefix, headless=False, **kw):
    """That a checkpoint holds the golden model's tensors behind `prefix`, bit for bit."""
    with open_checkpoint(tiny.path, config=tiny.config) as golden:
        looped = LoopForm(golden.reader)
        wanted = {n: looped.read(n) for n in looped.shapes if n.startswith(prefix)}
    if headless:
        wanted = {n: a for n, a in wanted.items() if "MAPHead" not in n}
    with open_checkpoint(path, **kw) as opened:
        looped = LoopForm(opened.reader)
        assert looped.shapes.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(looped.read(name), array)
        return opened


# -- alone


@pytest.mark.parametrize("prefix", ["", "vision_model."])
@pytest.mark.parametrize("name", ["loop", "naflex"])
def test_an_image_tower_of_transformers(tmp_path, stored, name, prefix):
    tensors, card, tiny = stored("transformers", name)
    folder = written(
        tmp_path / "x", renamed(tensors, "vision_model.", prefix), card["vision_config"]
    )
    opened = same(folder, tiny, prefix="img/")
    assert opened.tower == "image" and opened.prefix == "" and opened.dropped == {}


@pytest.mark.parametrize("prefix", ["", "text_model."])
@pytest.mark.parametrize("name", ["loop", "headless"])
def test_a_text_tower_of_transformers(tmp_path, stored, name, prefix):
    tensors, card, tiny = stored("transformers", name)
    folder = written(tmp_path / "x", renamed(tensors, "text_model.", prefix), card["text_config"])
    opened = same(folder, tiny, prefix="txt/")
    assert opened.config == tiny.config.only("text")


def test_a_tower_alone_has_nothing_else(tmp_path, stored):
    tensors, card, _ = stored("transformers")
    tensors = renamed(tensors, "vision_model.", "") | {"other.weight": np.ones(3, np.float32)}
    folder = written(tmp_path / "x", tensors, card["vision_config"])
    with pytest.raises(ValueError, match=r"1 problem\n  unexpected: other\.weight \(3,\)"):
        open_checkpoint(folder)


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("form", ["transformers", "open_clip", "siglip_jax", "npz", "tensorstore"])
def test_one_tower_of_a_whole_model(tmp_path, form, tower):
    tiny = case("loop")
    path = tmp_path / ("x.npz" if form == "npz" else "x")
    convert(tiny.path, path, to=form, config=tiny.config, pad=1)
    known = {"config": tiny.config} if form in ("npz", "tensorstore") else {}
    opened = same(
        path, tiny, prefix=f"{'img' if tower == 'image' else 'txt'}/", tower=tower, **known
    )
    assert opened.config == tiny.config.only(tower)
    assert any(why.startswith("not in the") for why in opened.dropped.values())
    with pytest.raises(ValueError, match=r"has no|alone; texts need|is open already"):
        image = convert(path, tmp_path / "image", to="siglip_jax", tower="image", **known)
        assert image.tower == "image"
        open_checkpoint(tmp_path / "image", tower="text")


def test_the_image_tower_beside_a_text_tower_of_another_model(tmp_path, stored):
    tensors, card, tiny = stored("open_clip")
    card["model_cfg"]["text_cfg"] = {"hf_model_name": "facebook/nllb-200-distilled-600M"}
    tensors = {n: a for n, a in tensors.items() if not n.startswith("text.")}
    tensors["text.transformer.shared.weight"] = np.ones((7, 3), np.float32)
    folder = written(tmp_path / "oc", tensors, file="open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(card))
    (folder / "visual").mkdir()
    source = tmp_path / "open_clip-loop" / "visual" / "config.json"
    (folder / "visual" / "config.json").write_text(source.read_text())
    with pytest.raises(ValueError, match=r"nllb.* its image tower can be read alone"):
        open_checkpoint(folder)
    opened = same(folder, tiny, prefix="img/", tower="image")
    assert opened.dropped["text.transformer.shared.weight"] == "not in the tower (visual.)"


@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.parametrize(
    ("form", "old", "new"),
    [
        ("transformers", "vision_model.", "vision_model."),
        ("transformers", "vision_model.", ""),
        ("open_clip", "visual.", "visual."),
        ("timm", "", ""),
    ],
)
def test_a_bare_file_with_the_architecture_of_a_whole_model(
    tmp_path, stored, form, old, new, headless
):
    tensors, _, tiny = stored(form)
    if headless:
        tensors = {n: a for n, a in tensors.items() if ".head." not in n and "attn_pool" not in n}
    folder = written(tmp_path / "bare", renamed(tensors, old, new))
    file = folder / "model.safetensors"
    opened = same(file, tiny, prefix="img/", headless=headless, config=tiny.config)
    gap = "gap" if form == "timm" else "none"
    assert opened.config.pool == (gap if headless else "map")
    with pytest.raises(ValueError, match=r"(?s)pass config|advice|does not say how many heads"):
        open_checkpoint(file)


# -- inside other models


def vlm(card, **more):
    return {"vision_config": card["vision_config"] | {"vision_use_head": False}, **more}


PREFIXES = {
    "vision_tower.": "paligemma",
    "vision_tower.vision_model.": "gemma3",
    "model.vision_tower.vision_model.": "llava_onevision",
    "model.vision_model.": "idefics3",
    "model.visual.encoder.": "somebody's",
}


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_tower_inside_another_model(tmp_path, stored, prefix, sharded):
    tensors, card, tiny = stored("transformers")
    other = {"lm_head.weight": np.ones((9, 4), np.float32)}
    other["language_model.layers.0.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    tower = renamed(tensors, "vision_model.", prefix, head=False)
    model = vlm(card, model_type=PREFIXES[prefix], text_config={"model_type": "gemma2"})
    if PREFIXES[prefix] == "idefics3":
        model["vision_config"]["model_type"] = "idefics3_vision"
    folder = written(tmp_path / "vlm", tower | other, model)
    if sharded:
        (folder / "model.safetensors").unlink()
        # The shards of the language model are not here, and are not needed.
        safetensors.numpy.save_file(tower, folder / "model-00001-of-00002.safetensors")
        where = dict.fromkeys(tower, "model-00001-of-00002.safetensors")
        where |= dict.fromkeys(other, "model-00002-of-00002.safetensors")
        index = json.dumps({"weight_map": where})
        (folder / "model.safetensors.index.json").write_text(index)
    opened = same(folder, tiny, prefix="img/", headless=True)
    assert opened.prefix == prefix and opened.reader.ignored == ()
    assert opened.dropped == dict.fromkeys(other, f"not in the tower ({prefix})")
    assert opened.config.vision == dataclasses.replace(tiny.config.vision, pool="none")
    record = convert(folder, tmp_path / "tower", to="transformers", pad=1)
    assert record.exact and record.dropped == opened.dropped
    same(tmp_path / "tower", tiny, prefix="img/", headless=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "idefics2"}, r"Idefics2 takes images of any size and looks their pos"),
        ({"vision_config": {"model_type": "clip_vision_model"}},
         r"model_type 'llava', and its image tower is 'clip_vision_model', not SigLIP's"),
        ({"vision_config": {"model_type": "idefics3_vision", "image_size": 800}},
         r"at 25 patches a side transformers rounds bucketed positions"),
        ({"vision_config": {}}, r"its image tower is 'llava', not SigLIP's"),
    ],
)  # fmt: skip
def test_image_towers_that_are_not_siglips(tmp_path, stored, change, message):
    tensors, card, _ = stored("transformers")
    model = vlm(card, model_type="llava") | change
    folder = written(tmp_path / "vlm", renamed(tensors, "vision_model.", "vision_tower."), model)
    with pytest.raises(ValueError, match=message) as error:
        open_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_another_model_without_an_image_tower_or_with_two(tmp_path, stored):
    tensors, card, _ = stored("transformers")
    model = vlm(card, model_type="llava")
    folder = written(tmp_path / "vlm", {"lm_head.weight": np.ones((2, 2), np.float32)}, model)
    with pytest.raises(ValueError, match=r"no image tower: nothing ends in embeddings\.patch_emb"):
        open_checkpoint(folder)
    two = renamed(tensors, "vision_model.", "a.") | renamed(tensors, "vision_model.", "b.")
    written(folder, two, model)
    with pytest.raises(ValueError, match=r"holds more than one image tower: a\., b\."):
        open_checkpoint(folder)


def test_a_whole_model_needs_its_head(tmp_path, stored):
    tensors, card, tiny = stored("transformers")
    card["vision_config"]["vision_use_head"] = False
    tensors = {n: a for n, a in tensors.items() if not n.startswith("vision_model.head")}
    folder = written(tmp_path / "x", tensors, card)
    with pytest.raises(ValueError, match=r"vision_use_head is False; without its head .* alone"):
        open_checkpoint(folder)
    same(folder, tiny, prefix="img/", headless=True, tower="image")


# -- timm


@pytest.mark.parametrize(
    ("arguments", "pool"),
    [({}, "gap"), ({"global_pool": "avg"}, "gap"), ({"global_pool": ""}, "none")],
)
def test_a_headless_tower_of_timm(tmp_path, stored, arguments, pool):
    tensors, card, tiny = stored("timm")
    card["architecture"] = "vit_base_patch16_siglip_gap_224"
    card["model_args"] |= arguments
    folder = written(tmp_path / "gap", renamed(tensors, "", "", head=False), card)
    opened = same(folder, tiny, prefix="img/", headless=True)
    assert opened.config.vision == dataclasses.replace(tiny.config.vision, pool=pool)
    for target, form in (("own", "siglip_jax"), ("back", "timm")):
        assert convert(folder, tmp_path / target, to=form).exact
        folder = tmp_path / target
        assert same(folder, tiny, prefix="img/", headless=True).config == opened.config
    again = json.loads((folder / "config.json").read_text())
    assert again["architecture"] == "vit_base_patch16_siglip_gap_224"
    assert again["model_args"].get("global_pool") == ("" if pool == "none" else None)


def test_the_mean_of_patches_has_no_place_in_transformers(tmp_path, stored):
    tensors, card, _ = stored("timm")
    card["architecture"] = "vit_base_patch16_siglip_gap_224"
    folder = written(tmp_path / "gap", renamed(tensors, "", "", head=False), card)
    with pytest.raises(ValueError, match=r"transformers cannot say .* pool='gap'; .*timm.* can$"):
        convert(folder, tmp_path / "hf", to="transformers", pad=1)
    assert not (tmp_path / "hf").exists()


# -- what a tower keeps


@pytest.mark.parametrize(("pad", "resample"), [(1, 3), (0, 2)])
def test_a_tower_keeps_its_resampling(tmp_path, pad, resample):
    tiny = case("loop")
    convert(
        tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, pad=pad, tower="image"
    )
    for source, target, form in (("hf", "own", "siglip_jax"), ("own", "back", "transformers")):
        convert(tmp_path / source, tmp_path / target, to=form)
    for folder in ("hf", "back"):
        card = json.loads((tmp_path / folder / "preprocessor_config.json").read_text())
        assert card["resample"] == resample


@pytest.mark.parametrize("form", ["npz", "timm"])
def test_a_tower_does_not_guess_its_resampling(tmp_path, form):
    tiny = case("loop")
    first = tmp_path / ("x.npz" if form == "npz" else "x")
    convert(tiny.path, first, to=form, config=tiny.config, tower="image")
    known = {"config": tiny.config} if form == "npz" else {}
    convert(first, tmp_path / "own", to="siglip_jax", **known)
    for source in (first, tmp_path / "own"):
        with pytest.raises(ValueError, match=r"a SigLIP or a SigLIP 2, whose images are resized"):
            convert(source, tmp_path / "hf", to="transformers", **known)
    # And what was loaded of it and saved says no more.
    model = siglip_jax.load(tmp_path / "own")
    siglip_jax.save(tmp_path / "saved", model.model, model.params, profile=model.profile)
    with open_checkpoint(tmp_path / "saved") as opened:
        assert opened.pad is None


@pytest.mark.parametrize(
    ("tag", "pad"),
    [("webli", 1), ("v2_webli", 0), ("pali_mix", 1), ("pali2_3b_pt", 1), ("x", None)],
)
def test_the_tag_of_timm_tells_siglip_from_siglip_2(tmp_path, stored, tag, pad):
    tensors, card, _ = stored("timm")
    card["pretrained_cfg"]["tag"] = tag
    with open_checkpoint(written(tmp_path / "timm", tensors, card)) as opened:
        assert opened.pad == pad


def test_a_fine_tune_keeps_what_its_vocabulary_tells(tmp_path):
    tiny = case("loop")
    flat = flatten(tiny.params)
    flat["txt/Embed_0/embedding"] = np.zeros((32_000, flat["txt/Embed_0/embedding"].shape[1]), "f4")
    text = dataclasses.replace(tiny.config.text, vocab_size=32_000)
    config = dataclasses.replace(tiny.config, text=text)
    write_npz(tmp_path / "x.npz", flat.items())
    with open_checkpoint(tmp_path / "x.npz", config=config, tower="image") as opened:
        assert opened.pad == 1


# -- what a headless tower cannot do


def test_scores_of_a_headless_tower(tmp_path, stored):
    tensors, card, tiny = stored("transformers")
    card["vision_config"]["vision_use_head"] = False
    tower = renamed(tensors, "vision_model.", "", head=False)
    folder = written(tmp_path / "x", tower, card["vision_config"])
    vision = dataclasses.replace(tiny.config.vision, pool="none")
    profile = custom_profile(Siglip(vision=vision, text=None), 1)
    scorer = siglip_jax.load(folder, profile=profile).scorer(tokenizer=False, batch_size=2)
    images = np.zeros((2, vision.res, vision.res, 3), np.uint8)
    why = r"without the head that brings images to where texts are; .* need a text tower"
    with pytest.raises(ValueError, match=why):
        scorer.logits(np.zeros((1, 24)), np.zeros((1, 24)))
    with pytest.raises(ValueError, match=r"\(pool='none'\), which gives patches and no embedding"):
        scorer.embed_images(images)
    assert scorer.features(images).shape == (2, vision.grid**2, 24)
