"""Against transformers itself: it loads what we write, unchanged, and we what it writes."""

import dataclasses
import json

import numpy as np
import pytest
from paths import FIXTURES, SHARED
from PIL import Image
from torch_libraries import agree, expected, import_libraries, inputs, outputs
from towers import NAMES, case

torch, transformers = import_libraries("transformers")

import siglip_jax  # noqa: E402
from siglip_jax.checkpoints import CHECKPOINTS  # noqa: E402
from siglip_jax.config import NaFlexVision, Siglip, Size, Text, Vision  # noqa: E402
from siglip_jax.converters import convert, open_checkpoint  # noqa: E402
from siglip_jax.converters import transformers as hf  # noqa: E402
from siglip_jax.preprocessing import (  # noqa: E402
    Tokenizer,
    custom_profile,
    naflex_patches,
    preprocess_image,
)
from siglip_jax.preprocessing.images import to_float  # noqa: E402
from siglip_jax.weights.npz import write_npz  # noqa: E402
from siglip_jax.weights.tree import flatten  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
TINY = FIXTURES / "tiny.model"
GEMMA = SHARED / "tokenizers" / "gemma_rebuilt" / "tokenizer.rebuilt.model"


def theirs(model, images, texts):
    """(image embeddings, text embeddings, logits) of a model of transformers."""
    ids = torch.tensor(np.asarray(texts)).long()
    if hasattr(images, "patches"):
        grid = np.stack([np.asarray(axis).max(1) + 1 for axis in (images.yidx, images.xidx)], 1)
        pixels = {
            "pixel_values": torch.tensor(np.asarray(images.patches)),
            "pixel_attention_mask": torch.tensor(np.asarray(images.type)),
            "spatial_shapes": torch.tensor(grid).long(),
        }
    else:
        pixels = {"pixel_values": torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)}
    with torch.no_grad():
        out = model.eval()(input_ids=ids, **pixels)
    return out.image_embeds.numpy(), out.text_embeds.numpy(), out.logits_per_image.numpy()


@pytest.mark.parametrize("name", NAMES)
def test_a_written_folder_loads_unchanged(tmp_path, name):
    tiny = case(name)
    convert(tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, pad=1)
    model, info = transformers.AutoModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(info.values())
    assert type(model).__name__ == ("Siglip2Model" if tiny.config.naflex else "SiglipModel")
    agree(theirs(model, tiny.images, tiny.texts), expected(tiny))


@pytest.mark.parametrize("name", ["loop", "naflex"])
@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_written_tower_loads_unchanged(tmp_path, name, tower):
    tiny = case(name)
    convert(tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, pad=1, tower=tower)
    part = {"image": "Vision", "text": "Text"}[tower]
    kind = getattr(transformers, f"Siglip{'2' if tiny.config.naflex else ''}{part}Model")
    model, info = kind.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(info.values())
    model.save_pretrained(tmp_path / "again")
    profile = custom_profile(tiny.config, 1, "transformers")
    for folder in ("hf", "again"):
        again = siglip_jax.load(tmp_path / folder, profile=profile)
        assert again.config == tiny.config.only(tower)
        with open_checkpoint(tmp_path / folder) as source:
            assert source.tower == tower
        place = 0 if tower == "image" else 1
        given = (tiny.images, None) if tower == "image" else (None, tiny.texts)
        z = again.model.apply({"params": again.params}, *given)[place]
        np.testing.assert_allclose(z, expected(tiny)[place], rtol=0, atol=1e-5)


def small(naflex, size, text_size, head, **kw):
    """A configuration of transformers with random sizes of ours."""
    Config = transformers.Siglip2Config if naflex else transformers.SiglipConfig
    common = lambda s: {  # noqa: E731
        "hidden_size": s.width,
        "intermediate_size": s.mlp_dim,
        "num_hidden_layers": s.depth,
        "num_attention_heads": s.num_heads,
    }
    picture = {"patch_size": 8, **({"num_patches": 25} if naflex else {"image_size": 36})}
    return Config(
        vision_config={**common(size), **picture},
        text_config={
            **common(text_size),
            "vocab_size": 77,
            "max_position_embeddings": 9,
            "projection_size": head,
        },
        **kw,
    )


@pytest.mark.parametrize("naflex", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_model_that_transformers_made(tmp_path, naflex, dtype, seed):
    size = Size(width=24, depth=2, mlp_dim=52, num_heads=[3, 4][seed])
    text = Size(width=16, depth=1, mlp_dim=36, num_heads=2)
    torch.manual_seed(seed)
    config = small(naflex, size, text, 24)
    model = (transformers.Siglip2Model if naflex else transformers.SiglipModel)(config)
    with torch.no_grad():
        for parameter in model.parameters():  # no norm or bias is 0 or 1
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path / "m", max_shard_size="20KB")
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 1
    profile = custom_profile(siglip_config(naflex, size, text), 0, "transformers")
    loaded = siglip_jax.load(tmp_path / "m", profile=profile, dtype="float32")
    assert loaded.config == siglip_config(naflex, size, text)
    images, texts = inputs(loaded.config, seed)
    ours = outputs(loaded.config, loaded.params, images, texts)
    agree(theirs(model.float(), images, texts), ours)


def siglip_config(naflex, size, text):
    vision = (
        NaFlexVision(size=size, patch=8, posemb_grid=5)
        if naflex
        else Vision(size=size, patch=8, res=36)
    )
    return Siglip(vision=vision, text=Text(size=text, vocab_size=77, length=9, head=24))


def test_a_pytorch_file_of_transformers(tmp_path):
    tiny = case("loop")
    first = convert(tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, pad=1)
    model = transformers.AutoModel.from_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "hf" / "pytorch_model.bin")
    record = convert(tmp_path / "hf", tmp_path / "back.npz", to="npz")
    assert record.exact and record.weights_sha256 == first.weights_sha256


def test_heads_are_seen(tmp_path):
    # The same shapes with other heads: another model, so that what is stated must be used.
    tiny = case("loop")
    convert(tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, pad=1)
    file = tmp_path / "hf" / "config.json"
    profile = custom_profile(tiny.config, 1)
    right = siglip_jax.load(tmp_path / "hf", profile=profile)
    file.write_text(
        file.read_text().replace('"num_attention_heads": 3', '"num_attention_heads": 6')
    )
    wrong = siglip_jax.load(tmp_path / "hf", profile=profile)
    assert wrong.config.vision.size.num_heads == 6
    a, b = (outputs(m.config, m.params, tiny.images, tiny.texts) for m in (right, wrong))
    assert np.abs(a[0] - b[0]).max() > 1e-3
    model = transformers.AutoModel.from_pretrained(tmp_path / "hf")
    agree(theirs(model, tiny.images, tiny.texts), b)


TEXTS = ["a photo of a cat", "Two Dogs, on a  mat!", "x_y \u00c9T\u00c9 " * 30, ""]


def pictures():
    rng = np.random.default_rng(0)
    sizes = ((150, 170, 3), (33, 20, 3), (300, 90, 3))
    return [rng.integers(0, 256, size, np.uint8) for size in sizes]


def same_pixels(got, want):
    """Every grey level; the floats that they become within rounding."""
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", ["loop", "scan_crop14", "naflex"])
@pytest.mark.parametrize("pad", [1, 0])
def test_the_processor_gives_our_pixels_and_ids(tmp_path, name, pad):
    if pad == 0 and not GEMMA.is_file():
        pytest.skip("needs ../shared/tokenizers")
    if (name, pad) == ("naflex", 1):
        pytest.skip("NaFlex is SigLIP 2")
    vocabulary, rows = (TINY, 320) if pad == 1 else (GEMMA, 256_000)
    config, tensors = with_rows(case(name), rows)
    write_npz(tmp_path / "x.npz", tensors.items())
    folder = tmp_path / "hf"
    convert(
        tmp_path / "x.npz",
        folder,
        to="transformers",
        config=config,
        pad=pad,
        vocabulary=vocabulary,
    )
    profile = custom_profile(config, pad, "transformers")
    processor = transformers.AutoProcessor.from_pretrained(folder)
    naflex = isinstance(config.vision, NaFlexVision)
    # Siglip2Processor sets 16 px and 256 patches whatever its folder says.
    sizes = {"patch_size": 8, "max_num_patches": 25} if naflex else {}
    out = processor(
        text=TEXTS,
        images=[Image.fromarray(picture) for picture in pictures()],
        padding="max_length",
        truncation=True,
        max_length=config.text.length,
        return_tensors="np",
        **sizes,
    )
    ids = Tokenizer(vocabulary, profile.text).encode(TEXTS)
    np.testing.assert_array_equal(out["input_ids"], ids)
    assert "attention_mask" not in out
    for i, picture in enumerate(pictures()):
        if not naflex:
            ours = to_float(preprocess_image(picture, profile.image))
            same_pixels(out["pixel_values"][i].transpose(1, 2, 0), ours)
            continue
        ours = naflex_patches(picture, profile.image, config.vision.patch)
        grid = [ours.yidx.max() + 1, ours.xidx.max() + 1]
        np.testing.assert_array_equal(out["spatial_shapes"][i], grid)
        np.testing.assert_array_equal(out["pixel_attention_mask"][i], ours.type)
        same_pixels(out["pixel_values"][i], ours.patches)
    images = transformers.AutoImageProcessor.from_pretrained(folder)
    assert (images.patch_size, images.max_num_patches) == (8, 25) if naflex else images.size


def with_rows(tiny, rows):
    """Configuration and tensors of a case with another token embedding."""
    flat = flatten(tiny.params)
    width = flat["txt/Embed_0/embedding"].shape[1]
    table = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    text = dataclasses.replace(tiny.config.text, vocab_size=rows)
    config = dataclasses.replace(tiny.config, text=text)
    return config, {**flat, "txt/Embed_0/embedding": table}


@pytest.mark.parametrize("row", CHECKPOINTS, ids=lambda row: row.name)
def test_the_shapes_of_every_released_checkpoint(tmp_path, row):
    pad = row.vocabulary.pad
    hf.write_files(tmp_path, row.config, None, pad=pad, dtype="float32", vocabulary=None)
    assert hf.read_config(tmp_path / "config.json") == (
        row.config
        if row.config.text.head
        else dataclasses.replace(
            row.config, text=dataclasses.replace(row.config.text, head=row.config.embed_dim)
        )
    )
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    theirs = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert theirs == {step.theirs: step.shape for step in hf.steps(row.config)}


@pytest.mark.parametrize("naflex", [False, True])
def test_what_a_configuration_leaves_out(tmp_path, naflex):
    """Files on the hub state only what differs from transformers' defaults."""
    kind = "siglip2" if naflex else "siglip"
    card = {"model_type": kind, "vision_config": {}, "text_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(card))
    ours = hf.read_config(tmp_path / "config.json")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    for part, size in (
        (theirs.vision_config, ours.vision.size),
        (theirs.text_config, ours.text.size),
    ):
        assert size == Size(
            width=part.hidden_size,
            depth=part.num_hidden_layers,
            mlp_dim=part.intermediate_size,
            num_heads=part.num_attention_heads,
        )
    vision, text = theirs.vision_config, theirs.text_config
    assert ours.vision.patch == vision.patch_size
    if naflex:
        assert ours.vision.posemb_grid**2 == vision.num_patches
    else:
        assert ours.vision.res == vision.image_size
    assert (ours.text.vocab_size, ours.text.length, ours.text.head) == (
        text.vocab_size,
        text.max_position_embeddings,
        text.projection_size,
    )
