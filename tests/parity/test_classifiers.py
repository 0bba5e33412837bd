"""Classifier fine-tunes of live libraries: the same logits, there, here and after a conversion."""

import numpy as np
import pytest
from torch_libraries import import_libraries, inputs, naflex_dict

torch, transformers, timm = import_libraries("transformers", "timm")

from classifier_folders import timm_folder, transformers_folder  # noqa: E402

import siglip_jax  # noqa: E402
from siglip_jax.converters import convert, open_checkpoint  # noqa: E402
from siglip_jax.preprocessing import custom_profile  # noqa: E402
from siglip_jax.verify.library_comparison import compare  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
LABELS = ["cat", "dog", "donut", "none"]
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
ARGUMENTS = {
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 1.5,
    "act_layer": "gelu_tanh",
}


def spread(model):
    """Heads are initialised near nought: larger, so that logits differ."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def ours(folder, images):
    with open_checkpoint(folder) as opened:
        config = opened.config
    model = siglip_jax.load(folder, profile=custom_profile(config, 1))
    images = inputs(config)[0] if images is None else images
    return images, model.scorer(batch_size=2).classify(images)


def of_transformers(model, images):
    if hasattr(images, "patches"):
        grid = np.stack([np.asarray(axis).max(1) + 1 for axis in (images.yidx, images.xidx)], 1)
        given = {
            "pixel_values": torch.tensor(np.asarray(images.patches)),
            "pixel_attention_mask": torch.tensor(np.asarray(images.type)),
            "spatial_shapes": torch.tensor(grid).long(),
        }
    else:
        given = {"pixel_values": torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)}
    with torch.no_grad():
        return model(**given).logits.numpy()


@pytest.mark.parametrize("naflex", [False, True])
def test_transformers(tmp_path, naflex):
    number = "2" if naflex else ""
    side = {"num_patches": 16} if naflex else {"image_size": 32}
    card = getattr(transformers, f"Siglip{number}Config")(
        vision_config=SIZE | side | {"patch_size": 8},
        text_config=SIZE | {"vocab_size": 50},
        id2label=dict(enumerate(LABELS)),
        problem_type="multi_label_classification",
    )
    kind = getattr(transformers, f"Siglip{number}ForImageClassification")
    model = spread(kind(card))
    model.save_pretrained(tmp_path / "hf")
    images, scores = ours(tmp_path / "hf", None)
    expected = of_transformers(model, images)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(scores.logits, expected, rtol=0, atol=1e-5)
    assert list(scores.labels) == LABELS and scores.activation == "sigmoid"

    convert(tmp_path / "hf", tmp_path / "ours", to="siglip_jax", pad=1)
    convert(tmp_path / "ours", tmp_path / "back", to="transformers", pad=1)
    again, info = kind.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info.values())
    assert again.config.id2label == dict(enumerate(LABELS))
    assert again.config.problem_type == "multi_label_classification"
    np.testing.assert_array_equal(of_transformers(again.eval(), images), expected)


@pytest.mark.parametrize("naflex", [False, True])
def test_timm(tmp_path, naflex):
    name = "naflexvit_base_patch16_siglip" if naflex else "vit_base_patch16_siglip_224"
    side = {"pos_embed_grid_size": [4, 4]} if naflex else {"img_size": 32}
    arguments = ARGUMENTS | side
    model = spread(timm.create_model(name, num_classes=4, **arguments))
    said = {"label_names": LABELS, "model_args": arguments}
    timm.models.save_for_hf(model, tmp_path / "timm", model_config=said, safe_serialization=True)
    images, scores = ours(tmp_path / "timm", None)
    with torch.no_grad():
        theirs = naflex_dict(torch, images) if naflex else torch.tensor(images).permute(0, 3, 1, 2)
        expected = model(theirs).numpy()
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(scores.logits, expected, rtol=0, atol=1e-5)
        assert list(scores.labels) == LABELS

        convert(tmp_path / "timm", tmp_path / "ours", to="siglip_jax")
        convert(tmp_path / "ours", tmp_path / "back", to="timm")
        again = timm.create_model(f"local-dir:{tmp_path / 'back'}", pretrained=True).eval()
        assert list(again.pretrained_cfg["label_names"]) == LABELS
        np.testing.assert_array_equal(again(theirs).numpy(), expected)


def test_timm_without_the_pooling_head(tmp_path):
    """There the classifier is given the mean of the patches."""
    arguments = ARGUMENTS | {"img_size": 32}
    model = spread(timm.create_model("vit_base_patch16_siglip_gap_224", num_classes=4, **arguments))
    said = {"label_names": LABELS, "model_args": arguments}
    timm.models.save_for_hf(model, tmp_path / "timm", model_config=said, safe_serialization=True)
    images, scores = ours(tmp_path / "timm", None)
    with torch.no_grad():
        expected = model(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(scores.logits, expected, rtol=0, atol=1e-5)
        convert(tmp_path / "timm", tmp_path / "ours", to="siglip_jax")
        convert(tmp_path / "ours", tmp_path / "back", to="timm")
        again = timm.create_model(f"local-dir:{tmp_path / 'back'}", pretrained=True).eval()
        theirs = torch.tensor(images).permute(0, 3, 1, 2)
        np.testing.assert_array_equal(again(theirs).numpy(), expected)


@pytest.mark.parametrize("make", [transformers_folder, timm_folder])
def test_compare_speaks_of_the_classes(tmp_path, make):
    """A certificate that compares is of the logits of the classes too."""
    convert(make(tmp_path), tmp_path / "ours", to="siglip_jax", pad=1)
    to = make.__name__.removesuffix("_folder")
    convert(tmp_path / "ours", tmp_path / "back", to=to, pad=1)
    found = compare(tmp_path / "back", to)
    assert set(found["largest_difference"]) == {"image", "logits"} and found["agrees"]
