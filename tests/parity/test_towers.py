"""Towers alone, headless, and inside other models, against live transformers, timm, open_clip."""

import dataclasses
import json

import numpy as np
import pytest
from torch_libraries import import_libraries, inputs
from towers import NAMES, case

torch, transformers = import_libraries("transformers")

import siglip_jax  # noqa: E402
from siglip_jax.config import NaFlexVision, Siglip, Size, Vision  # noqa: E402
from siglip_jax.converters import convert, open_checkpoint  # noqa: E402
from siglip_jax.preprocessing import custom_profile  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
SIZE = Size(width=24, depth=3, mlp_dim=52, num_heads=3)
VISION = {
    "hidden_size": 24,
    "intermediate_size": 52,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "patch_size": 8,
    "image_size": 36,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 1200,
}


def shaken(model, seed=0):
    """With no norm or bias left at 0 or 1."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def close(ours, theirs, atol=1e-5):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def pixels_of(images):
    if not hasattr(images, "patches"):
        return {"pixel_values": torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)}
    grid = np.stack([np.asarray(axis).max(1) + 1 for axis in (images.yidx, images.xidx)], 1)
    return {
        "pixel_values": torch.tensor(np.asarray(images.patches)),
        "pixel_attention_mask": torch.tensor(np.asarray(images.type)),
        "spatial_shapes": torch.tensor(grid).long(),
    }


def loaded(folder, like, **kw):
    profile = custom_profile(like, 1)
    return siglip_jax.load(folder, profile=profile, **kw)


# -- alone


@pytest.mark.parametrize("name", ["loop", "scan_crop14", "naflex"])
@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("made", ["apart", "taken out"])
def test_a_tower_that_transformers_saved_alone(tmp_path, name, tower, made):
    tiny = case(name)
    convert(tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, pad=1)
    whole = transformers.AutoModel.from_pretrained(tmp_path / "hf").eval()
    theirs = whole.vision_model if tower == "image" else whole.text_model
    if made == "apart":
        theirs = shaken(type(theirs)(theirs.config))
    theirs.save_pretrained(tmp_path / "tower")
    with open_checkpoint(tmp_path / "tower") as opened:
        assert opened.tower == tower and opened.prefix == ""
    model = loaded(tmp_path / "tower", tiny.config)
    assert model.config == tiny.config.only(tower)
    images, texts = inputs(model.config)
    z = model.model.apply({"params": model.params}, images, texts)[0 if tower == "image" else 1]
    with torch.no_grad():
        given = pixels_of(images) if texts is None else {"input_ids": torch.tensor(texts).long()}
        close(z, unit(theirs(**given).pooler_output.numpy()))
    # And back: transformers loads what is made of it.
    back = convert(tmp_path / "tower", tmp_path / "back", to="transformers", pad=1)
    assert back.exact
    again, info = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info.values())
    for key, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize("naflex", [False, True])
def test_a_headless_tower_of_transformers(tmp_path, naflex):
    kind = "Siglip2" if naflex else "Siglip"
    given = {k: v for k, v in VISION.items() if k != "image_size" or not naflex}
    given |= {"num_patches": 25} if naflex else {}
    config = getattr(transformers, f"{kind}VisionConfig")(**given, vision_use_head=False)
    theirs = shaken(getattr(transformers, f"{kind}VisionModel")(config))
    theirs.save_pretrained(tmp_path / "tower")
    model = loaded(tmp_path / "tower", Siglip(vision=vision_of(naflex), text=None))
    assert model.config.vision == vision_of(naflex)
    images, _ = inputs(model.config)
    with torch.no_grad():
        out = theirs(**pixels_of(images), output_hidden_states=True)
    assert out.pooler_output is None
    check_features(model, images, out)
    record = convert(tmp_path / "tower", tmp_path / "back", to="transformers", pad=0)
    assert record.exact
    again = type(theirs).from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        got = again(**pixels_of(images)).last_hidden_state
    assert torch.equal(got, out.last_hidden_state)


def vision_of(naflex=False, pool="none"):
    if naflex:
        return NaFlexVision(size=SIZE, patch=8, posemb_grid=5, pool=pool)
    return Vision(size=SIZE, patch=8, res=36, pool=pool)


def check_features(model, images, out):
    """Patches after the last norm, and of every layer."""
    scorer = model.scorer(tokenizer=False, batch_size=2)
    valid = np.asarray(images.type) == 1 if hasattr(images, "type") else ...
    close(scorer.features(images)[valid], out.last_hidden_state.numpy()[valid])
    for layer in range(-4, 4):
        theirs = out.hidden_states[layer].numpy()[valid]
        close(scorer.features(images, layer=layer)[valid], theirs)
    with pytest.raises(
        ValueError,
        match=r"^blocks=4: the image tower has 3 blocks, so that it must lie in -4\.\.3$",
    ):
        scorer.features(images, layer=4)


# -- inside other models


def paligemma(text, **kw):
    return transformers.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **VISION},
        text_config={"model_type": text, **TEXT},
        projection_dim=16,
        **kw,
    )


def with_siglip(config, text, head, **kw):
    return config(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": head, **VISION},
        text_config={"model_type": text, **TEXT} if text else TEXT,
        **kw,
    )


t = transformers
INSIDE = {
    "PaliGemma": lambda: t.PaliGemmaForConditionalGeneration(paligemma("gemma")),
    "PaliGemma 2": lambda: t.PaliGemmaForConditionalGeneration(paligemma("gemma2")),
    "PaliGemma, base": lambda: t.PaliGemmaModel(paligemma("gemma2")),
    "Gemma 3": lambda: t.Gemma3ForConditionalGeneration(
        with_siglip(t.Gemma3Config, "", False, mm_tokens_per_image=4)
    ),
    "LLaVA": lambda: t.LlavaForConditionalGeneration(
        with_siglip(t.LlavaConfig, "llama", True, vision_feature_select_strategy="full")
    ),
    "LLaVA-OneVision": lambda: t.LlavaOnevisionForConditionalGeneration(
        with_siglip(t.LlavaOnevisionConfig, "qwen2", False)
    ),
    "Idefics3": lambda: t.Idefics3ForConditionalGeneration(
        t.Idefics3Config(
            vision_config=VISION, text_config={"model_type": "llama", **TEXT}, scale_factor=2
        )
    ),
    "SmolVLM": lambda: t.SmolVLMForConditionalGeneration(
        t.SmolVLMConfig(
            vision_config=VISION, text_config={"model_type": "llama", **TEXT}, scale_factor=2
        )
    ),
}


def tower_inside(model):
    return next(
        module
        for module in model.modules()
        if type(module).__name__.endswith(("VisionModel", "VisionTransformer"))
    )


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
@pytest.mark.parametrize("name", INSIDE)
def test_the_tower_inside_another_model(tmp_path, name, shards):
    theirs = shaken(INSIDE[name]())
    theirs.save_pretrained(tmp_path / "vlm", max_shard_size=shards)
    leave_only_shards_of_the_tower(tmp_path / "vlm")
    with open_checkpoint(tmp_path / "vlm") as opened:
        assert opened.tower == "image" and opened.prefix.endswith(
            ("vision_tower.", "vision_model.")
        )
        assert any("not in the tower" in why for why in opened.dropped.values())
        pool = opened.config.pool
    assert pool == ("map" if name == "LLaVA" else "none")
    model = loaded(tmp_path / "vlm", Siglip(vision=vision_of(pool=pool), text=None))
    assert model.config.vision == vision_of(pool=pool)
    images, _ = inputs(model.config)
    with torch.no_grad():
        out = tower_inside(theirs)(**pixels_of(images), output_hidden_states=True)
    check_features(model, images, out)
    scorer = model.scorer(tokenizer=False)
    if pool == "map":
        close(scorer.embed_images(images), unit(out.pooler_output.numpy()))
    else:
        with pytest.raises(ValueError, match=r"without pooling.*take its patches"):
            scorer.embed_images(images)
    with pytest.raises(ValueError, match=r"an image tower alone.*need a text tower"):
        scorer.score(images, ["a"])
    # A folder of the tower alone is made of it.
    record = convert(tmp_path / "vlm", tmp_path / "tower", to="transformers", pad=1)
    assert record.exact and record.verified
    kind = transformers.SiglipVisionModel
    again, info = kind.from_pretrained(tmp_path / "tower", output_loading_info=True)
    assert not any(info.values())
    with torch.no_grad():
        close(again.eval()(**pixels_of(images)).last_hidden_state, out.last_hidden_state)


def leave_only_shards_of_the_tower(folder):
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    names = json.loads(index.read_text())["weight_map"]
    needed = {file for name, file in names.items() if "vision" in name}
    unneeded = set(names.values()) - needed
    assert unneeded
    for file in unneeded:
        (folder / file).unlink()


def test_the_positions_of_idefics2_are_refused(tmp_path):
    card = {"model_type": "idefics2", "vision_config": {"model_type": "idefics2_vision"}}
    (tmp_path / "config.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"Idefics2 .* bucketed fractional coordinates"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("side", [5, 24, 25, 26, 27, 32, 40, 64])
def test_bucketed_positions_are_read_where_they_are_in_order(tmp_path, side):
    vision = t.Idefics3VisionConfig(**VISION | {"image_size": 8 * side})
    embeddings = t.models.idefics3.modeling_idefics3.Idefics3VisionEmbeddings(vision)
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_()
        embeddings.patch_embedding.bias.zero_()
        embeddings.position_embedding.weight[:, 0] = torch.arange(side**2)
        mask = torch.ones(1, side, side, dtype=torch.bool)
        got = embeddings(torch.zeros(1, 3, 8 * side, 8 * side), mask)[0, :, 0].numpy()
    in_order = (got == np.arange(side**2)).all()
    config = t.Idefics3Config(vision_config=vision, text_config={"model_type": "llama", **TEXT})
    config.save_pretrained(tmp_path)
    from siglip_jax.converters.transformers_card import read_config

    if in_order:
        assert read_config(tmp_path / "config.json").vision.grid == side
    else:
        with pytest.raises(ValueError, match=f"at {side} patches a side"):
            read_config(tmp_path / "config.json")


# -- timm


def test_every_headless_architecture_of_timm(tmp_path):
    import timm

    from siglip_jax.converters import timm as table

    for name in timm.list_models("*siglip_gap*"):
        with torch.device("meta"):
            theirs = timm.create_model(name)
        (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
        vision, notes = table.read_card(table.read_settings(tmp_path / "config.json"))
        assert vision.pool == "gap"
        shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
        made = table.steps(Siglip(vision=vision, text=None))
        assert {step.theirs: step.shape for step in made} == shapes, name
        assert vision.size.num_heads == theirs.blocks[0].attn.num_heads
        exact = type(theirs.blocks[0].mlp.act).__name__ == "GELU"
        assert bool(notes) == exact == table.exact_gelu(name), name


@pytest.mark.parametrize("pool", ["gap", "none", "map"])
@pytest.mark.parametrize("base", ["siglip_gap_224", "siglip_224"])
def test_a_headless_tower_of_timm(tmp_path, pool, base):
    import timm

    if (pool, base) == ("map", "siglip_gap_224"):
        pytest.skip("an architecture without head does not get one")
    name = f"vit_base_patch16_{base}"
    args = {"img_size": 36, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
    args |= {"mlp_ratio": 52 / 24 + 1e-9, "act_layer": "gelu_tanh"}
    args |= {"global_pool": {"gap": "avg", "none": "", "map": "map"}[pool], "fc_norm": False}
    theirs = shaken(timm.create_model(name, num_classes=0, **args))
    timm.models.save_for_hf(theirs, tmp_path / "timm", model_args=args)
    model = loaded(tmp_path / "timm", Siglip(vision=vision_of(pool=pool), text=None))
    assert model.config.vision == vision_of(pool=pool)
    images, _ = inputs(model.config)
    check_timm(theirs, model, images)
    # Our folder and timm's again.
    for source, target, form in (("timm", "own", "siglip_jax"), ("own", "back", "timm")):
        assert convert(tmp_path / source, tmp_path / target, to=form).exact
    assert loaded(tmp_path / "own", model.config).config == model.config
    again = timm.create_model(f"local-dir:{tmp_path / 'back'}", pretrained=True, num_classes=0)
    check_timm(again.eval(), model, images)


def check_timm(theirs, model, images):
    z, _, out = model.model.apply({"params": model.params}, images)
    with torch.no_grad():
        given = torch.tensor(images).permute(0, 3, 1, 2)
        close(out["img/encoded"], theirs.forward_features(given).numpy())
        if model.config.pool == "none":
            assert z is None
            close(out["img/encoded"], theirs(given).numpy())
        else:
            close(z, unit(theirs(given).numpy()))


# -- open_clip


@pytest.mark.parametrize("tower", ["image", "text"])
def test_one_tower_of_an_open_clip_folder(tmp_path, tower):
    tiny = case("loop")
    convert(tiny.path, tmp_path / "oc", to="open_clip", config=tiny.config)
    model = loaded(tmp_path / "oc", tiny.config, tower=tower)
    assert model.config == tiny.config.only(tower)
    images, texts = inputs(model.config)
    whole = loaded(tmp_path / "oc", tiny.config)
    z = model.model.apply({"params": model.params}, images, texts)
    want = whole.model.apply({"params": whole.params}, images, texts)
    place = 0 if tower == "image" else 1
    close(z[place], want[place], 0)


def test_the_image_tower_beside_another_text_tower(tmp_path):
    """NLLB-SigLIP: the text tower is another model's, and the image tower is SigLIP's."""
    import safetensors.numpy

    tiny = case("loop")
    convert(tiny.path, tmp_path / "oc", to="open_clip", config=tiny.config)
    card = json.loads((tmp_path / "oc" / "open_clip_config.json").read_text())
    card["model_cfg"]["text_cfg"] = {"hf_model_name": "facebook/nllb-200-distilled-600M"}
    (tmp_path / "oc" / "open_clip_config.json").write_text(json.dumps(card))
    file = tmp_path / "oc" / "open_clip_model.safetensors"
    stored = safetensors.numpy.load_file(file)
    stored = {k: v for k, v in stored.items() if not k.startswith("text.")}
    stored["text.transformer.shared.weight"] = np.zeros((7, 3), np.float32)
    safetensors.numpy.save_file(stored, file)
    with pytest.raises(ValueError, match="its image tower can be read alone"):
        open_checkpoint(tmp_path / "oc")
    model = loaded(tmp_path / "oc", tiny.config, tower="image")
    z = model.model.apply({"params": model.params}, tiny.images)[0]
    close(z, tiny.golden["zimg"] if "zimg" in tiny.golden else unit(np.asarray(z)), 1e-6)


# -- bare files


@pytest.mark.parametrize("form", ["transformers", "open_clip", "timm"])
@pytest.mark.parametrize("headless", [False, True])
def test_a_bare_file_of_an_image_tower(tmp_path, form, headless):
    """No configuration beside it: that of a model like it is given, both towers and head."""
    import safetensors.numpy

    tiny = case("loop")
    convert(tiny.path, tmp_path / "x", to=form, config=tiny.config,
            pad=1, tower="image" if form == "timm" else None)  # fmt: skip
    file = next((tmp_path / "x").glob("*.safetensors"))
    part = {"transformers": "vision_model.", "open_clip": "visual.", "timm": ""}[form]
    stored = safetensors.numpy.load_file(file)
    stored = {k: v for k, v in stored.items() if k.startswith(part)}
    if headless:
        stored = {k: v for k, v in stored.items() if "attn_pool" not in k and ".head." not in k}
    safetensors.numpy.save_file(stored, tmp_path / "bare.safetensors")
    pool = "map" if not headless else "gap" if form == "timm" else "none"
    with open_checkpoint(tmp_path / "bare.safetensors", config=tiny.config) as opened:
        assert opened.tower == "image" and opened.config.pool == pool
    model = loaded(tmp_path / "bare.safetensors", tiny.config, config=tiny.config)
    out = model.model.apply({"params": model.params}, tiny.images)[2]
    whole = siglip_jax.models.SiglipModel(tiny.config)
    want = whole.apply({"params": tiny.params}, tiny.images)[2]
    close(out["img/encoded"], want["img/encoded"])


def test_names_cover_all_cases():
    assert {"loop", "scan_crop14", "naflex"} <= set(NAMES)
    assert dataclasses.is_dataclass(Siglip)
