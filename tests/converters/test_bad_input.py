"""What is no SigLIP, damaged, or does not say enough: one line that names it."""

import json
import re

import numpy as np
import pytest
import safetensors.numpy
from towers import FIXTURES, case

from siglip_jax.converters import convert, detect, open_checkpoint


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny model in each system's folder; never written to."""
    root = tmp_path_factory.mktemp("folders")
    tiny = case("loop")
    for form in ("transformers", "open_clip", "timm", "siglip_jax"):
        convert(tiny.path, root / form, to=form, config=tiny.config, pad=1)
    return root


@pytest.fixture
def edited(folders, tmp_path):
    """A function: copies a folder, edits its configuration and its weights."""

    def edit(form, card=None, weights=None):
        copy = tmp_path / form
        copy.mkdir()
        for file in (folders / form).rglob("*"):
            if file.is_file():
                target = copy / file.relative_to(folders / form)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(file.read_bytes())
        name = {"open_clip": "open_clip_config.json", "siglip_jax": "siglip_jax.json"}
        if card is not None:
            file = copy / name.get(form, "config.json")
            values = json.loads(file.read_text())
            card(values)
            file.write_text(json.dumps(values))
        if weights is not None:
            (file,) = copy.glob("*.safetensors")
            stored = safetensors.numpy.load_file(file)
            weights(stored)
            safetensors.numpy.save_file(stored, file)
        return copy

    return edit


def refused(path, message, **kw):
    with pytest.raises(ValueError, match=message) as error:
        open_checkpoint(path, **kw)
    assert len(str(error.value).splitlines()) == 1 or "does not fit the model" in str(error.value)
    return str(error.value)


def test_removed_added_and_transposed_in_one_error(edited):
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"

    def spoil(stored):
        del stored["text_model.final_layer_norm.bias"]
        stored["vision_model.extra.weight"] = np.zeros((2, 3), np.float32)
        stored[name] = np.ascontiguousarray(stored[name].T)
        stored["logit_bias"] = stored["logit_bias"].astype(np.int32)

    path = edited("transformers", weights=spoil)
    message = refused(path, "does not fit the model: 4 problems")
    assert message.splitlines() == [
        f"{path / 'model.safetensors'} does not fit the model: 4 problems",
        "  missing: text_model.final_layer_norm.bias (16,)",
        "  unexpected: vision_model.extra.weight (2, 3)",
        f"  wrong shape: {name} is (24, 52), expected (52, 24)",
        "  wrong dtype: logit_bias is int32, expected a float",
    ]


def test_a_misspelled_name_is_offered(edited):
    def spoil(stored):
        stored["text_model.head.weigth"] = stored.pop("text_model.head.weight")

    message = refused(edited("transformers", weights=spoil), "2 problems")
    assert "(near: text_model.head.weigth)" in message


@pytest.mark.parametrize(
    ("form", "name", "what"),
    [
        ("transformers", "vision_model.embeddings.class_embedding", "a class token, as in CLIP"),
        (
            "transformers",
            "vision_model.pre_layrnorm.weight",
            "a norm before the blocks, as in CLIP",
        ),
        ("open_clip", "visual.trunk.cls_token", "a class token, as in CLIP and DINO"),
        ("open_clip", "visual.trunk.reg_token", "register tokens, as in DINOv2"),
        ("timm", "blocks.0.ls1.gamma", "layer scale, as in DINOv2"),
        ("timm", "rope.freqs", "rotary position embeddings"),
        ("timm", "blocks.0.attn.q_norm.weight", "normalised queries and keys"),
    ],
)
def test_tensors_of_another_architecture(edited, form, name, what):
    path = edited(form, weights=lambda stored: stored.update({name: np.zeros(2, np.float32)}))
    message = refused(path, re.escape(f"is no SigLIP model: {name} is {what}"))
    assert "\n" not in message


def test_a_big_vision_model_with_a_class_token(tmp_path):
    tiny = case("loop")
    with np.load(tiny.path) as stored:
        np.savez(tmp_path / "x.npz", **stored, **{"img/cls": np.zeros((1, 1, 24), np.float32)})
    with pytest.raises(ValueError, match=r"1 problem\n  unexpected: img/cls \(1, 1, 24\)"):
        convert(tmp_path / "x.npz", tmp_path / "y.npz", to="npz", config=tiny.config)


def in_part(part, **values):
    return lambda card: card[part].update(values)


def in_model(part, **values):
    return lambda card: card["model_cfg"][part].update(values)


@pytest.mark.parametrize(
    ("form", "edit", "message"),
    [
        ("transformers", lambda c: c.update(model_type="clip"),
         r"config\.json is of model_type 'clip', not SigLIP; expected one of siglip, "),
        ("transformers", lambda c: c.update(model_type="dinov2"),
         r"model_type 'dinov2', not SigLI"),
        ("transformers", in_part("vision_config", hidden_act="quick_gelu"),
         r"vision_config: hidden_act is 'quick_gelu'; SigLIP computes gelu_pytorch_tanh"),
        ("transformers", in_part("text_config", layer_norm_eps=1e-5),
         r"layer_norm_eps is 1e-05; S"),
        ("transformers", in_part("vision_config", vision_use_head=False),
         r"vision_use_head is Fal"),
        ("transformers", in_part("vision_config", num_attention_heads=0),
         r"num_attention_heads is 0, expected a positive integer"),
        ("transformers", in_part("vision_config", image_size=[32, 64]),
         r"image_size is \[32, 64\]"),
        ("transformers", in_part("vision_config", num_attention_heads=5),
         r"24 is not a multiple of"),
        ("transformers", in_part("text_config", num_hidden_layers=1),
         r"problems\n  unexpected: text"),
        ("open_clip", in_model("vision_cfg", timm_model_name=None),
         r"has no timm_model_name: not an"),
        ("open_clip", in_model("vision_cfg", timm_model_name="vit_base_patch16_clip_224"),
         r"timm's 'vit_base_patch16_clip_224' is not an image tower of SigLIP; did you mean vit"),
        ("open_clip", in_model("vision_cfg", timm_pool="avg"), r"timm_pool is 'avg'; SigLIP pools"),
        ("open_clip", in_model("text_cfg", no_causal_mask=False), r"no_causal_mask is False"),
        ("open_clip", in_model("text_cfg", pool_type="argmax"),
         r"pool_type is 'argmax'; SigLIP po"),
        ("open_clip", in_model("text_cfg", norm_kwargs={}),
         r"norm_kwargs: eps is 1e-05; SigLIP has"),
        ("open_clip", in_model("text_cfg", hf_model_name="roberta"),
         r"hf_model_name is 'roberta', n"),
        ("open_clip", lambda c: c["model_cfg"].pop("embed_dim"),
         r"model_cfg does not say embed_dim"),
        ("open_clip", lambda c: c["model_cfg"].update(quick_gelu=True), r"quick_gelu is True"),
        ("timm", lambda c: c.update(architecture="vit_base_patch16_siglip_gap_225"),
         r"timm's 'vit_base_patch16_siglip_gap_225' is not an image tower of SigLIP; did you mean"),
        ("timm", in_part("model_args", qk_norm=True), r"qk_norm is not a setting that SigLIP has"),
        ("timm", in_part("model_args", act_layer="relu"),
         r"act_layer is 'relu'; SigLIP has gelu_t"),
        ("timm", lambda c: c.update(architecture="vit_base_patch16_siglip_gap_224"),
         r"problems\n  unexpected: attn_pool"),
        ("timm", in_part("model_args", global_pool="avg"),
         r"global_pool is 'avg' without fc_norm false, so that timm puts the last norm after"),
        ("timm", in_part("model_args", global_pool="token"),
         r"global_pool is 'token', expected one of map, avg, "),
        ("timm", in_part("model_args", fc_norm=True), r"fc_norm is True; SigLIP has False"),
        ("siglip_jax", lambda c: c.pop("config"), r"siglip_jax\.json: there is no 'config'"),
        ("siglip_jax", lambda c: c.update(tower="both"),
         r"tower is 'both'; expected image or text"),
        ("siglip_jax", in_part("config", text={}), r"siglip_jax\.json: not a model configuration"),
    ],
)  # fmt: skip
def test_configurations(edited, form, edit, message):
    refused(edited(form, card=edit), message)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_configuration_that_is_no_json(edited, text):
    path = edited("transformers")
    (path / "config.json").write_bytes(text.encode("latin-1"))
    refused(path, r"config\.json: not (JSON|a JSON object)")


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("transformers", "config.json"),
        ("open_clip", "open_clip_config.json"),
        ("timm", "config.json"),
    ],
)
def test_weights_without_their_configuration(edited, form, name):
    path = edited(form)
    (path / name).unlink()
    (weights,) = path.glob("*.safetensors")
    assert detect(weights) == form
    refused(weights, f"does not say how many heads .* there is no {name} beside it; pass config")
    with open_checkpoint(weights, config=case("loop").config) as source:
        assert source.format == form
    with pytest.raises(ValueError, match="is no big_vision checkpoint, nor a folder of tran"):
        open_checkpoint(path)


def test_a_bare_file_is_converted_beside_itself(edited):
    path = edited("open_clip")
    (path / "open_clip_config.json").unlink()
    (path / "visual" / "config.json").unlink()
    config = case("loop").config
    weights = path / "open_clip_model.safetensors"
    record = convert(weights, path / "x.npz", to="npz", config=config)
    assert record.source["path"] == str(weights)
    assert record.source["files"].keys() == {weights.name}


def test_files_of_nobody(tmp_path):
    safetensors.numpy.save_file({"layer.weight": np.zeros(2)}, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", "not the weights of a SigLIP of any known system: it h")
    refused(FIXTURES / "torch_files" / "state_dict.pt", "not the weights of a SigLIP of any known")
    refused(FIXTURES / "torch_files" / "code.pt", "holds code, not only weights")
    refused(tmp_path / "y.npz", r"y\.npz does not exist")
    (tmp_path / "d").mkdir()
    refused(tmp_path / "d", "nor a folder of transformers, .*: it holds nothing")


def test_an_open_clip_folder_for_this_place_is_read_elsewhere(tmp_path):
    # open_clip itself finds `visual` by its full path; we look beside the configuration first.
    tiny = case("loop")
    convert(tiny.path, tmp_path / "x", to="open_clip", config=tiny.config, pad=1, exact=True)
    card = json.loads((tmp_path / "x" / "open_clip_config.json").read_text())
    named = card["model_cfg"]["vision_cfg"]["timm_model_name"]
    assert named == f"local-dir:{tmp_path / 'x' / 'visual'}"
    (tmp_path / "x").rename(tmp_path / "moved")
    with open_checkpoint(tmp_path / "moved") as source:
        assert source.config == case("loop").config


def test_an_image_size_that_nothing_states(tmp_path):
    tiny = case("loop")
    refused(tiny.path, r"loop\.npz: these weights are no released checkpoint .*; pass res=32")
    with open_checkpoint(tiny.path, res=33) as source:
        assert source.config.vision.res == 33
    convert(tiny.path, tmp_path / "image.npz", to="npz", config=tiny.config, tower="image")
    refused(tmp_path / "image.npz", r"image\.npz: these weights are no released .*; pass res=32")
    with open_checkpoint(tmp_path / "image.npz", res=33) as source:
        assert source.config.vision.res == 33 and source.tower == "image"


@pytest.mark.parametrize("form", ["transformers", "siglip_jax"])
def test_a_billion_layers(edited, form):
    def grow(card):
        part = card["config"]["vision"]["size"] if form == "siglip_jax" else card["vision_config"]
        part["depth" if form == "siglip_jax" else "num_hidden_layers"] = 10**9

    refused(edited(form, card=grow), "depth may be at most 1,024, got 1,000,000,000")


@pytest.mark.parametrize("weights", ["/etc/passwd", "../siglip_jax/weights.safetensors", 3])
def test_a_card_names_a_file_beside_it(edited, weights):
    path = edited("siglip_jax", card=lambda card: card.update(weights=weights))
    message = refused(path, "expected the plain name of a file beside it")
    assert "root:" not in message
