"""Against timm itself: it loads what we write, unchanged, and we what it writes."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from torch_libraries import import_libraries, inputs, naflex_dict
from towers import NAMES, case

torch, timm = import_libraries("timm")

import siglip_jax  # noqa: E402
from siglip_jax.checkpoints import CHECKPOINTS  # noqa: E402
from siglip_jax.config import (  # noqa: E402
    NaFlexVision,
    Siglip,
    Size,
    Vision,
)
from siglip_jax.converters import convert, open_checkpoint  # noqa: E402
from siglip_jax.converters import timm as timm_table  # noqa: E402
from siglip_jax.converters.json_file import Settings  # noqa: E402
from siglip_jax.preprocessing import custom_profile, preprocess_image  # noqa: E402
from siglip_jax.preprocessing.images import to_float  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def theirs(model, images):
    """Pooled features, not normalised."""
    naflex = hasattr(images, "patches")
    pixels = (
        naflex_dict(torch, images)
        if naflex
        else torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)
    )
    with torch.no_grad():
        return model.eval()(pixels).numpy()


def agree(model, loaded, images):
    _, _, out = jax.jit(loaded.model.apply)({"params": loaded.params}, images)
    z = np.asarray(out["img/pre_logits"])
    # Not normalised: relative to the longest row, whose length a unit vector would have.
    scale = np.linalg.norm(z, axis=1).max()
    np.testing.assert_allclose(theirs(model, images), z, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_a_written_folder_loads_unchanged(tmp_path, name):
    tiny = case(name)
    folder = tmp_path / "timm"
    convert(tiny.path, folder, to="timm", config=tiny.config)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    loaded = siglip_jax.load(folder)
    assert loaded.config == tiny.config.only("image")
    agree(model, loaded, tiny.images)
    card = json.loads((folder / "config.json").read_text())
    by_hand = timm.create_model(
        card["architecture"],
        checkpoint_path=str(folder / "model.safetensors"),
        num_classes=0,
        **card["model_args"],
    )
    agree(by_hand, loaded, tiny.images)
    if tiny.config.naflex:
        return
    # And the preprocessing is what our open_clip profile does with images.
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    data = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**data, is_training=False)
    got = transform(Image.fromarray(picture)).numpy().transpose(1, 2, 0)
    want = to_float(preprocess_image(picture, custom_profile(tiny.config, 1, "open_clip").image))
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-7)


SIZE = Size(width=24, depth=2, mlp_dim=53, num_heads=3)
FIXED = Vision(size=SIZE, patch=8, res=36)
NAFLEX = NaFlexVision(size=SIZE, patch=8, posemb_grid=5)


@pytest.mark.parametrize("vision", [FIXED, NAFLEX], ids=["fixed", "naflex"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_model_that_timm_made(tmp_path, vision, dtype, seed):
    arguments = {
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "mlp_ratio": 2.2101,
        "patch_size": 8,
        "act_layer": "gelu_tanh",
    }
    if vision is FIXED:
        name, arguments["img_size"] = "vit_base_patch16_siglip_224", 36
    else:
        name, arguments["pos_embed_grid_size"] = "naflexvit_base_patch16_siglip", (5, 5)
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=0, **arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.to(getattr(torch, dtype))
    timm.models.save_for_hf(model, tmp_path, model_args=arguments)
    loaded = siglip_jax.load(tmp_path, dtype="float32")
    assert loaded.config == Siglip(vision=vision, text=None)
    agree(model.float(), loaded, inputs(Siglip(vision=vision, text=None), seed)[0])


@pytest.mark.parametrize("name", ["vit_base_patch16_siglip_224", "vit_base_patch32_siglip_256"])
def test_a_registered_architecture(tmp_path, name):
    model = timm.create_model(name, num_classes=0)
    timm.models.save_for_hf(model, tmp_path / "m")
    with open_checkpoint(tmp_path / "m") as source:
        exact = "exact GELU" in " ".join(source.notes)
    assert exact == ("patch16" in name)  # what timm has registered
    convert(tmp_path / "m", tmp_path / "back", to="timm")
    again = timm.create_model(f"local-dir:{tmp_path / 'back'}", pretrained=True)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


@pytest.mark.parametrize("row", CHECKPOINTS, ids=lambda row: row.name)
def test_the_shapes_of_every_released_checkpoint(row):
    """What we would write is what timm's registered architecture has, name by name."""
    name, arguments = timm_table.architecture_of(row.config.vision)
    assert arguments == {"act_layer": "gelu_tanh"}
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0, **arguments)
    theirs = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert theirs == {step.theirs: step.shape for step in timm_table.steps(row.config)}
    # And its published name is read as this image tower.
    where = Settings({}, "config.json")
    vision, _ = timm_table.read_architecture(row.timm, "config.json", where)
    assert vision == row.config.vision


def test_what_timm_says_of_its_activations():
    """Our table of exact and approximate GELU, against all architectures that timm has."""
    for name in timm_table.architectures():
        kw = {"depth": 1, "num_classes": 0, "embed_dim": 32, "num_heads": 2}
        model = timm.create_model(name, **kw)
        act = model.blocks[0].mlp.act
        approximate = type(act).__name__ == "GELUTanh" or getattr(act, "approximate", "") == "tanh"
        assert approximate != timm_table.exact_gelu(name), name
