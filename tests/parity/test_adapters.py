"""PEFT adapters: merged here they are what live PEFT's `merge_and_unload` makes of them."""

import numpy as np
import pytest
from torch_libraries import import_libraries, inputs

torch, transformers, peft, timm = import_libraries("transformers", "peft", "timm")

import siglip_jax  # noqa: E402
from siglip_jax.converters import convert, open_checkpoint  # noqa: E402
from siglip_jax.converters.loop_form import LoopForm  # noqa: E402
from siglip_jax.model_files import open_model  # noqa: E402
from siglip_jax.preprocessing import custom_profile  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VISION = SIZE | {"image_size": 32, "patch_size": 8}
TEXT = SIZE | {"vocab_size": 50, "max_position_embeddings": 8}


def whole():
    torch.manual_seed(0)
    return transformers.SiglipModel(
        transformers.SiglipConfig(vision_config=VISION, text_config=TEXT)
    ).eval()


def trained(model, **options):
    """A model with an adapter whose factors are random, as if it were trained.

    They are multiples of 1/256, so that their products are exact in float32, in any order: else
    two libraries may fall on different sides of a rounding to half precision.
    """
    adapted = peft.get_peft_model(model, peft.LoraConfig(**options))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_((25 * torch.randn_like(parameter)).round() / 256)
    return adapted.eval()


def tensors(opened):
    with opened:
        reader = LoopForm(opened.reader)
        return {name: np.array(reader.read(name)) for name in reader.shapes}


def agree(folder, base, merged):
    ours, theirs = tensors(open_model(folder, base=base)), tensors(open_checkpoint(merged))
    before = tensors(open_checkpoint(base))
    assert ours.keys() == theirs.keys()
    assert any(not np.array_equal(ours[name], before.get(name)) for name in ours)
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        np.testing.assert_allclose(ours[name], array, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": "all-linear", "r": 4, "lora_alpha": 3},
        {"target_modules": ["out_proj", "fc1", "fc2", "text_model.head"], "use_rslora": True},
        {
            "target_modules": ["q_proj", "k_proj"],
            "rank_pattern": {"k_proj": 3},
            "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 20},
        },
        {"target_modules": ["token_embedding", "patch_embedding"]},
        {"target_modules": ["q_proj"], "bias": "lora_only"},
        {"target_modules": ["q_proj"], "layers_to_transform": [1]},
        {"target_modules": ["q_proj"], "modules_to_save": ["post_layernorm"]},
    ],
)
def test_merged(tmp_path, options):
    model = whole()
    model.save_pretrained(tmp_path / "base")
    adapted = trained(model, **options)
    adapted.save_pretrained(tmp_path / "adapter")
    peft.PeftModel.from_pretrained(whole(), tmp_path / "adapter").merge_and_unload(
        safe_merge=True
    ).save_pretrained(tmp_path / "merged")
    agree(tmp_path / "adapter", tmp_path / "base", tmp_path / "merged")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision(tmp_path, dtype):
    model = whole().to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "base")
    adapted = trained(model, target_modules=["q_proj", "fc1"])
    adapted.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(
        whole().to(getattr(torch, dtype)), tmp_path / "adapter"
    ).merge_and_unload()
    again.save_pretrained(tmp_path / "merged")
    ours = tensors(open_model(tmp_path / "adapter", base=tmp_path / "base"))
    for name, array in tensors(open_checkpoint(tmp_path / "merged")).items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


@pytest.mark.parametrize("to", ["npz", "open_clip", "siglip_jax"])
def test_the_base_may_be_in_another_format(tmp_path, to):
    model = whole()
    model.save_pretrained(tmp_path / "base")
    adapted = trained(model, target_modules=["q_proj", "out_proj", "fc2"])
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    other = tmp_path / ("base.npz" if to == "npz" else to)
    convert(tmp_path / "base", other, to=to, pad=1)
    with open_checkpoint(tmp_path / "base") as opened:
        config = opened.config
    ours = tensors(open_model(tmp_path / "adapter", base=other, config=config))
    for name, array in tensors(open_checkpoint(tmp_path / "merged")).items():
        np.testing.assert_allclose(ours[name], array, rtol=0, atol=1e-6, err_msg=name)


def test_a_tower_alone(tmp_path):
    torch.manual_seed(0)
    model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION)).eval()
    base = whole()
    base.vision_model.load_state_dict(model.state_dict())
    base.save_pretrained(tmp_path / "base")
    adapted = trained(model, target_modules=["q_proj", "v_proj"])
    adapted.save_pretrained(tmp_path / "adapter")
    expected = adapted.merge_and_unload().state_dict()
    name = "encoder.layers.1.self_attn.q_proj.weight"
    theirs = next(v for k, v in expected.items() if k.endswith(name)).numpy()
    ours = tensors(open_model(tmp_path / "adapter", base=tmp_path / "base"))
    found = ours["img/Transformer/encoderblock_1/MultiHeadDotProductAttention_0/query/kernel"]
    np.testing.assert_allclose(found.reshape(32, 32).T, theirs, rtol=0, atol=1e-6)


def test_a_classifier_trained_beside_the_adapter(tmp_path):
    """The usual recipe: LoRA on the tower, the classifier whole."""
    whole().save_pretrained(tmp_path / "base")
    model = transformers.SiglipForImageClassification.from_pretrained(
        tmp_path / "base", num_labels=3
    )
    adapted = trained(model, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = siglip_jax.load(
        tmp_path / "adapter",
        base=tmp_path / "base",
        profile=custom_profile(open_model(tmp_path / "base").config, 1),
    )
    images, _ = inputs(loaded.config)
    with torch.no_grad():
        expected = adapted(torch.tensor(images).permute(0, 3, 1, 2)).logits.numpy()
    scores = loaded.scorer().classify(images)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(scores.logits, expected, rtol=0, atol=1e-5)
    assert scores.labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_of_timm(tmp_path):
    arguments = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 1.5, "img_size": 32}
    arguments["act_layer"] = "gelu_tanh"
    model = timm.create_model("vit_base_patch16_siglip_224", **arguments).eval()
    said = {"model_args": arguments}
    timm.models.save_for_hf(model, tmp_path / "base", model_config=said, safe_serialization=True)
    adapted = trained(model, target_modules=["qkv", "proj", "fc1"])
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload()
    timm.models.save_for_hf(merged, tmp_path / "merged", model_config=said, safe_serialization=True)
    agree(tmp_path / "adapter", tmp_path / "base", tmp_path / "merged")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "use_dora is True, another kind of LoRA"),
        ({"lora_bias": True}, "lora_bias is True, another kind of LoRA"),
    ],
)
def test_other_kinds_of_lora_are_refused(tmp_path, options, message):
    model = whole()
    model.save_pretrained(tmp_path / "base")
    trained(model, target_modules=["q_proj"], **options).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match=message):
        open_model(tmp_path / "adapter", base=tmp_path / "base")


@pytest.mark.parametrize("kind", ["IA3Config", "LoHaConfig", "VeraConfig"])
def test_other_adapters_are_refused_by_name(tmp_path, kind):
    model = whole()
    model.save_pretrained(tmp_path / "base")
    options = {"target_modules": ["q_proj"]}
    if kind == "IA3Config":
        options["feedforward_modules"] = []
    peft.get_peft_model(model, getattr(peft, kind)(**options)).save_pretrained(tmp_path / "a")
    name = kind.removesuffix("Config").upper()
    with pytest.raises(ValueError, match=f"an adapter of kind {name}; only LORA is merged"):
        open_model(tmp_path / "a", base=tmp_path / "base")


@pytest.mark.parametrize("scan", [False, True])
def test_live_peft_loads_what_the_trainer_writes(tmp_path, scan):
    """The same embeddings from the base with the adapter there and the merged model here."""
    import jax

    from siglip_jax.config import Execution
    from siglip_jax.programs.sharding import REPLICATED, make_mesh
    from siglip_jax.training.lora import merged, save_adapter, with_factors
    from siglip_jax.training.recipe_tables import Lora
    from siglip_jax.weights.tree import flatten, nested

    model = whole()
    model.save_pretrained(tmp_path / "base")
    profile = custom_profile(open_model(tmp_path / "base").config, 1)
    execution = Execution(scan_image=scan, scan_text=scan)
    loaded = siglip_jax.load(tmp_path / "base", profile=profile, execution=execution)
    lora = Lora(rank=3, alpha=5.0, targets=("query", "out", "txt/.*/Dense_0"))
    mesh = make_mesh(jax.devices()[:1])
    flat = flatten(with_factors(loaded.params, lora, 0, mesh, REPLICATED))
    rng = np.random.default_rng(0)
    for name in flat:
        if name.endswith("lora_b"):
            flat[name] = rng.standard_normal(flat[name].shape).astype(np.float32)
    save_adapter(tmp_path / "adapter", nested(flat), lora, loaded.config, base=None)

    adapted = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    trained_names = [n for n, _ in adapted.named_parameters() if "lora_A" in n]
    assert len(trained_names) == 2 * 2 * 2 + 2
    images, texts = inputs(loaded.config)
    with torch.no_grad():
        out = adapted(
            pixel_values=torch.tensor(images).permute(0, 3, 1, 2), input_ids=torch.tensor(texts)
        )
    params = merged(nested(flat), lora)
    zimg, ztxt, _ = loaded.model.apply({"params": params}, images, texts)
    before, _, _ = loaded.model.apply({"params": loaded.params}, images, texts)
    assert np.abs(np.asarray(zimg) - np.asarray(before)).max() > 1e-2
    np.testing.assert_allclose(out.image_embeds.numpy(), zimg, rtol=0, atol=1e-5)
    np.testing.assert_allclose(out.text_embeds.numpy(), ztxt, rtol=0, atol=1e-5)
