"""Architecture as data: a round trip, and every refusal."""

import copy
import dataclasses
import json

import pytest

from siglip_jax.checkpoints import CHECKPOINTS, find
from siglip_jax.config import (
    SIZES,
    Execution,
    NaFlexVision,
    Siglip,
    Size,
    Text,
    Vision,
    from_dict,
    to_dict,
)

B = SIZES["B"]
BASE = find("siglip_b16_224").config


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda c: c.name)
def test_json_and_back(checkpoint):
    plain = json.loads(json.dumps(to_dict(checkpoint.config)))
    assert from_dict(copy.deepcopy(plain)) == checkpoint.config
    before = copy.deepcopy(plain)
    from_dict(plain)
    assert plain == before  # the caller's dictionary is left alone


@pytest.mark.parametrize("tower", ["image", "text"])
def test_one_tower_alone(tower):
    alone = BASE.only(tower)
    assert (alone.tower, alone.towers, alone.embed_dim) == (tower, (tower,), BASE.embed_dim)
    assert alone.only(tower) == alone and BASE.only(None) == BASE
    assert from_dict(json.loads(json.dumps(to_dict(alone)))) == alone
    other = {"image": "text", "text": "image"}[tower]
    with pytest.raises(
        ValueError, match=rf"^this model is an? {tower} tower alone; {other}s need "
    ):
        alone.only(other)


def test_what_needs_which_tower():
    image = BASE.only("image")
    image.needs("image", what="images")
    with pytest.raises(ValueError, match=r"^x is an image tower alone; scores need a text tower t"):
        image.needs("image", "text", what="scores", name="x")
    with pytest.raises(ValueError, match=r"alone; texts need a text tower$"):
        _ = image.text_tower
    with pytest.raises(ValueError, match="images need an image tower"):
        BASE.only("text").at_resolution(448)
    with pytest.raises(ValueError, match="there is no tower; give vision, text, or both"):
        Siglip(vision=None, text=None)


def edited(path, value):
    plain = to_dict(BASE)
    *parents, last = path.split("/")
    inside = plain
    for key in parents:
        inside = inside[key]
    if value is KeyError:
        del inside[last]
    else:
        inside[last] = value
    return plain


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({}, "not a model configuration: there is no 'vision'"),
        ({"vision": 3, "text": {}}, "not a model configuration: vision is 3, expected an object"),
        (
            edited("vision/type", "flex"),
            "not a model .* vision.type is 'flex', expected one of fixed",
        ),
        (edited("vision/type", KeyError), "not a model .* vision.type is None, expected one of"),
        (edited("vision/patch", KeyError), "not a model configuration: vision.patch is missing"),
        (edited("text/pool", "last"), "not a model configuration: text.pool is unknown"),
        (edited("text/size/depth", -1), "Size: depth must be a positive integer, got -1"),
    ],
)
def test_a_dictionary_that_is_no_configuration(plain, message):
    with pytest.raises(ValueError, match=message):
        from_dict(plain)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Size(width=0, depth=1, mlp_dim=1, num_heads=1),
            "Size: width must be a positive integer, got 0",
        ),
        (
            lambda: Size(width=8, depth=1.5, mlp_dim=1, num_heads=1),
            "Size: depth must be a positive integer, got 1.5",
        ),
        (
            lambda: Size(width=8, depth=True, mlp_dim=1, num_heads=1),
            "Size: depth must be a positive integer, got True",
        ),
        (
            lambda: Size(width=8, depth=1, mlp_dim=1, num_heads=3),
            "Size: width 8 is not a multiple of num_heads 3",
        ),
        (
            lambda: Vision(size=B, patch=-16, res=224),
            "Vision: patch must be a positive integer, got -16",
        ),
        (lambda: Vision(size=B, patch=16, res=8), "Vision: res 8 is smaller than patch 16"),
        (
            lambda: NaFlexVision(size=B, patch=16, canvas=0),
            "NaFlexVision: canvas must be a positive integer, got 0",
        ),
        (
            lambda: Text(size=B, vocab_size=None, length=64, head=768),
            "Text: vocab_size must be a positive integer, got None",
        ),
        (
            lambda: Text(size=B, vocab_size=32, length=64, head=0),
            "Text: head must be a positive integer, got 0",
        ),
        (
            lambda: dataclasses.replace(BASE, text=dataclasses.replace(BASE.text, head=512)),
            "Siglip: image embeddings are 768 wide and text embeddings 512; set text.head=768",
        ),
        (
            lambda: Siglip(
                vision=Vision(size=SIZES["g-opt"], patch=16, res=256),
                text=Text(size=SIZES["So400m"], vocab_size=9, length=4, head=None),
            ),
            "Siglip: image embeddings are 1536 wide and text embeddings 1152",
        ),
        (
            lambda: find("siglip2_b16_naflex").config.at_resolution(256),
            "a NaFlex model has no fixed resolution to change",
        ),
        (
            lambda: Execution(dtype="float16"),
            "Execution: dtype must be one of float32, bfloat16, got 'float16'",
        ),
        (
            lambda: Execution(text_dtype="int8"),
            "Execution: text_dtype must be one of float32, bfloat16, got 'int8'",
        ),
        (
            lambda: Execution(attention="flash"),
            "Execution: attention must be one of auto, matmul, xla, cudnn, einsum, got 'flash'",
        ),
        (
            lambda: Execution(precision="high"),
            "Execution: precision must be highest or default, got 'high'",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_another_resolution_changes_nothing_else():
    other = BASE.at_resolution(384)
    assert (other.vision.res, other.vision.grid) == (384, 24)
    assert other.at_resolution(224) == BASE


def test_float32_means_float32_on_every_device():
    assert Execution().precision == "highest"
    assert Execution(dtype="bfloat16").precision == "default"
    assert Execution(precision="default").precision == "default"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Size(width=8, depth=10**9, mlp_dim=8, num_heads=1), "depth may be at most 1,024"),
        (lambda: Size(width=10**9, depth=1, mlp_dim=8, num_heads=1), "width may be at most"),
        (lambda: dataclasses.replace(BASE.vision, res=10**9), "res may be at most 16,384"),
        (lambda: dataclasses.replace(BASE.text, length=10**9), "length may be at most 65,536"),
        (lambda: dataclasses.replace(BASE.text, vocab_size=10**9), "vocab_size may be at most"),
    ],
)
def test_no_configuration_asks_for_more_work_than_any_model(make, message):
    with pytest.raises(ValueError, match=message):
        make()
