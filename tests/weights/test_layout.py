"""The parameter tables, and the configuration read back from them."""

import dataclasses
import json
import re

import pytest
from towers import FIXTURES, NAMES, case

from siglip_jax.checkpoints import CHECKPOINTS, find
from siglip_jax.config import NaFlexVision, Siglip, Size, Text, Vision
from siglip_jax.weights.architecture import config_from_shapes
from siglip_jax.weights.layout import (
    only_tower,
    parameter_count,
    parameter_shapes,
    split_block_name,
)

SIZE = Size(width=48, depth=3, mlp_dim=104, num_heads=4)
TEXT = Text(size=SIZE, vocab_size=320, length=16, head=48)
TINY = Siglip(vision=Vision(size=SIZE, patch=8, res=32), text=TEXT)
TREES = json.loads((FIXTURES / "trees.json").read_text())


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda c: c.name)
def test_released_counts_and_trees(checkpoint):
    assert parameter_count(checkpoint.config) == checkpoint.params
    scanned = parameter_shapes(checkpoint.config, scan_image=True, scan_text=True)
    assert {k: list(v) for k, v in scanned.items()} == TREES[checkpoint.name]["scan"]


def test_forms_are_chosen_per_tower():
    shapes = parameter_shapes(TINY, scan_text=True)
    assert shapes["img/Transformer/encoderblock_2/MlpBlock_0/Dense_0/kernel"] == (48, 104)
    assert shapes["txt/Encoder_0/encoderblock/MlpBlock_0/Dense_0/kernel"] == (3, 48, 104)
    assert not any("txt/Encoder_0/encoderblock_" in name for name in shapes)


@pytest.mark.parametrize("name", ["siglip_b16_224", "siglip2_b16_naflex"])
def test_one_tower_alone(name):
    config = find(name).config
    both = parameter_shapes(config)
    image, text = (parameter_shapes(config.only(tower)) for tower in ("image", "text"))
    assert {**image, **text, "t": (1,), "b": (1,)} == both
    assert only_tower(image) == "image" and only_tower(text) == "text"
    assert only_tower(both) is None and only_tower([*image, "b"]) is None
    assert config_from_shapes(image) == config.only("image")
    assert config_from_shapes(text) == config.only("text")


@pytest.mark.parametrize("name", ["txt/Transformer/encoderblock_0/x", "img/pos_embedding", "t"])
def test_names_outside_blocks(name):
    assert split_block_name(name) is None


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda c: c.name)
def test_released_configurations_are_recognised(checkpoint, scan):
    shapes = parameter_shapes(checkpoint.config, scan_image=scan)
    assert config_from_shapes(shapes) == checkpoint.config


@pytest.mark.parametrize("name", NAMES)
def test_tiny_configurations_are_recognised(name):
    config = case(name).config
    res = None if config.naflex else config.vision.res
    assert config_from_shapes(parameter_shapes(config, scan_text=True), res=res) == config


def test_a_released_tree_at_another_resolution_of_the_same_grid():
    config = find("siglip_so400m14_384").config
    assert config_from_shapes(parameter_shapes(config), res=378).vision.res == 378
    with pytest.raises(ValueError, match=r"392 px .* 28 patches .* res=378 \(or up to 391\)"):
        config_from_shapes(parameter_shapes(config), res=392)


def test_resolution_is_asked_for():
    with pytest.raises(ValueError, match=r"4 patches of 8 px .*pass res=32 \(or up to 39\)"):
        config_from_shapes(parameter_shapes(TINY))
    naflex = dataclasses.replace(TINY, vision=NaFlexVision(size=SIZE, patch=8, posemb_grid=5))
    with pytest.raises(ValueError, match=r"takes any resolution; leave out res=32"):
        config_from_shapes(parameter_shapes(naflex), res=32)


def test_heads_are_read_not_derived():
    size = dataclasses.replace(SIZE, num_heads=2)
    config = dataclasses.replace(TINY, text=dataclasses.replace(TEXT, size=size))
    assert config_from_shapes(parameter_shapes(config), res=32).text.size.num_heads == 2


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("img/embedding/kernel", None, "not the weights of a SigLIP model: there is no img/emb"),
        ("img/pos_embedding", (16, 48), "img/pos_embedding is (16, 48); expected 3 axes"),
        ("img/pos_embedding", (1, 15, 48), "15 is not the area of a square grid"),
        ("txt/Embed_0/embedding", (0, 48), "expected 2 axes, none of them empty"),
        (
            "txt/Encoder_0/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel",
            (48, 4, 13),
            "4 heads of 13 are not 48 wide",
        ),
    ],
)
def test_odd_shapes(name, shape, message):
    shapes = parameter_shapes(TINY)
    shapes.pop(name)
    if shape is not None:
        shapes[name] = shape
    with pytest.raises(ValueError, match=re.escape(message)):
        config_from_shapes(shapes, res=32)
