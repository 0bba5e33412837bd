"""Against open_clip itself: it loads what we write, unchanged, and we what it writes."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from torch_libraries import agree, expected, import_libraries, inputs, naflex_dict, outputs
from towers import FIXTURES, NAMES, case

torch, open_clip, safetensors = import_libraries("open_clip", "safetensors.torch")

import siglip_jax  # noqa: E402
from siglip_jax.checkpoints import CHECKPOINTS  # noqa: E402
from siglip_jax.config import Siglip, Size, Text, Vision  # noqa: E402
from siglip_jax.converters import convert  # noqa: E402
from siglip_jax.converters import open_clip as oc  # noqa: E402
from siglip_jax.preprocessing import Tokenizer, custom_profile, preprocess_image  # noqa: E402
from siglip_jax.preprocessing.images import to_float  # noqa: E402
from siglip_jax.weights.npz import write_npz  # noqa: E402
from siglip_jax.weights.tree import flatten  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
TINY = FIXTURES / "tiny.model"


def theirs(model, images, texts):
    """(image embeddings, text embeddings, logits) of a model of open_clip."""
    model.eval()
    if hasattr(images, "patches"):
        pixels = naflex_dict(torch, images)
    else:
        pixels = torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)
    with torch.no_grad():
        zimg = model.encode_image(pixels, normalize=True)
        ztxt = model.encode_text(torch.tensor(np.asarray(texts)).long(), normalize=True)
        logits = zimg @ ztxt.T * model.logit_scale.exp() + model.logit_bias
    return zimg.numpy(), ztxt.numpy(), logits.numpy()


@pytest.mark.parametrize("name", NAMES)
def test_a_written_folder_loads_unchanged(tmp_path, name):
    tiny = case(name)
    convert(tiny.path, tmp_path / "oc", to="open_clip", config=tiny.config, exact=True)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'oc'}")
    agree(theirs(model, tiny.images, tiny.texts), expected(tiny))
    if tiny.config.naflex:
        return
    # And the preprocessing is what our open_clip profile does.
    profile = custom_profile(tiny.config, 1, "open_clip").image
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    got = transform(Image.fromarray(picture)).numpy().transpose(1, 2, 0)
    want = to_float(preprocess_image(picture, profile))
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-7)


def test_a_written_tokenizer_gives_our_ids(tmp_path):
    tiny = case("loop")
    text = dataclasses.replace(tiny.config.text, vocab_size=320)
    config = dataclasses.replace(tiny.config, text=text)
    table = np.zeros((320, text.size.width), np.float32)
    tensors = {**flatten(tiny.params), "txt/Embed_0/embedding": table}
    write_npz(tmp_path / "x.npz", tensors.items())
    convert(
        tmp_path / "x.npz",
        tmp_path / "oc",
        to="open_clip",
        config=config,
        pad=1,
        vocabulary=TINY,
    )
    tokenize = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'oc'}")
    texts = ["a photo of a cat", "Two Dogs, on a  mat!", "x_y \u00c9T\u00c9 &amp; " * 9, ""]
    ours = Tokenizer(TINY, custom_profile(config, 1, "open_clip").text).encode(texts)
    np.testing.assert_array_equal(tokenize(texts).numpy(), ours)


MODEL = {
    "embed_dim": 768,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 256,
        "timm_model_name": "vit_base_patch32_siglip_256",
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 9,
        "vocab_size": 77,
        "width": 16,
        "heads": 2,
        "layers": 1,
        "mlp_ratio": 2.25,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
        "act_kwargs": {"approximate": "tanh"},
    },
}


@pytest.fixture(scope="module", params=[0, 1], ids=["seed0", "seed1"])
def made(request):
    """A model that open_clip made, with random weights everywhere, and our architecture of it."""
    torch.manual_seed(request.param)
    model = open_clip.model.CustomTextCLIP(
        **{key: value for key, value in MODEL.items() if key != "custom_text"}
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    base = Size(width=768, depth=12, mlp_dim=3072, num_heads=12)
    text = Size(width=16, depth=1, mlp_dim=36, num_heads=2)
    config = Siglip(
        vision=Vision(size=base, patch=32, res=256),
        text=Text(size=text, vocab_size=77, length=9, head=768),
    )
    images, texts = inputs(config, n=2)
    return model, config, images, texts


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["safetensors", "state_dict", "training"])
def test_a_model_that_open_clip_made(tmp_path, made, kind, dtype):
    model, config, images, texts = made
    state = {k: v.to(getattr(torch, dtype)).contiguous() for k, v in model.state_dict().items()}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL}))
    path = tmp_path / "epoch_1.pt"
    if kind == "safetensors":
        path = tmp_path
        safetensors.save_file(state, path / "open_clip_model.safetensors")
    elif kind == "state_dict":
        torch.save(state, path)
    else:
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))])
        state = {f"module.{name}": value for name, value in state.items()}
        torch.save(
            {"epoch": 1, "name": "x", "state_dict": state, "optimizer": optimizer.state_dict()},
            path,
        )
    loaded = siglip_jax.load(path, profile=custom_profile(config, 0), dtype="float32")
    assert loaded.config == config
    model.load_state_dict({k.removeprefix("module."): v.float() for k, v in state.items()})
    ours = outputs(config, loaded.params, images, texts)
    agree(theirs(model, images, texts), ours)


def test_the_exact_gelu_of_a_stock_configuration_is_said(tmp_path, made):
    model, config, _, _ = made
    plain = json.loads(json.dumps(MODEL))
    del plain["text_cfg"]["act_kwargs"]
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": plain}))
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    with pytest.warns(UserWarning, match="open_clip computes the exact GELU in the text tower"):
        siglip_jax.load(tmp_path, profile=custom_profile(config, 0))


NAMED = [(row, name) for row in CHECKPOINTS for name in row.open_clip]


@pytest.mark.parametrize(("row", "name"), NAMED, ids=[name for _, name in NAMED])
def test_its_own_configuration_of_every_released_checkpoint(tmp_path, row, name):
    stock = open_clip.get_model_config(name)
    if stock is None:
        pytest.skip(f"this open_clip has no {name}")
    file = tmp_path / "open_clip_config.json"
    file.write_text(json.dumps({"model_cfg": stock}))
    config, notes = oc.read_config(file)
    assert config == row.config
    assert any("text tower" in note for note in notes) == (row.version == 1)
    # Ours says the same but for the activation, and has the same tensors.
    oc.write_files(
        tmp_path, row.config, None, destination=tmp_path, pad=None, vocabulary=None,
        tokenizer_name=f"timm/{name}", exact=True,
    )  # fmt: skip
    assert oc.read_config(file) == (row.config, ())
    ours = json.loads(file.read_text())["model_cfg"]
    assert (ours["embed_dim"], ours["custom_text"]) == (stock["embed_dim"], True)
    for cfg in (stock, ours):
        cfg.pop("custom_text")
        cfg["vision_cfg"] |= {"timm_model_pretrained": False}
        with torch.device("meta"):
            model = open_clip.model.CustomTextCLIP(**cfg)
        theirs = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        assert theirs == {step.theirs: step.shape for step in oc.steps(row.config)}
