"""Rules: rearrangements and their inverses, tables that cover each tensor once."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from towers import NAMES, case

from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.converters import open_clip, timm, transformers
from siglip_jax.converters.rules import Op, Rule, expand, heads, norm
from siglip_jax.weights.layout import parameter_shapes

PATTERNS = (
    "d -> d",
    "i o -> o i",
    "h w i o -> o i h w",
    "d h k -> (h k) d",
    "h k -> (h k)",
    "h k d -> d (h k)",
    "1 n d -> n d",
    "1 n d -> 1 n d",
    "1 1 d -> 1 1 d",
    "y x d -> (y x) d",
    "y x d -> 1 y x d",
    "1 -> 1",
    "1 -> ",
)


@given(st.sampled_from(PATTERNS), st.lists(st.integers(1, 5), min_size=4, max_size=4))
def test_every_rearrangement_goes_back(pattern, sizes):
    names = pattern.split("->")[0].split()
    shape = tuple(1 if n == "1" else size for n, size in zip(names, sizes, strict=False))
    ours = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    op = Op(pattern)
    theirs = op.forward(ours)
    assert theirs.shape == op.shape(shape)
    np.testing.assert_array_equal(op.inverse(theirs, shape), ours)


def test_what_the_rearrangements_are():
    x = np.random.default_rng(0).normal(size=(4, 3, 2))
    np.testing.assert_array_equal(Op("d h k -> (h k) d").forward(x), x.reshape(4, 6).T)
    np.testing.assert_array_equal(Op("h k d -> d (h k)").forward(x), x.reshape(12, 2).T)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    np.testing.assert_array_equal(Op("h w i o -> o i h w").forward(x), x.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(Op("y x d -> (y x) d").forward(x[0]), x[0].reshape(12, 5))
    assert Op("1 -> ").forward(np.ones(1)).shape == ()


@pytest.mark.parametrize("pattern", ["a b -> a", "a -> a a", "a b -> (a c) b"])
def test_what_is_no_rearrangement(pattern):
    with pytest.raises(ValueError, match=r"a rearrangement|in list|in tuple"):
        Op(pattern).shape((2, 3))
    with pytest.raises(ValueError, match=r"i o -> o i does not fit a tensor of shape \(2,\)"):
        Op("i o -> o i").shape((2,))


def test_joining_is_undone_by_our_shapes():
    shapes = {f"a/{n}/kernel": (4, 2, k) for n, k in (("query", 3), ("key", 3), ("value", 3))}
    shapes |= {f"a/{n}/bias": (2, 3) for n in ("query", "key", "value")}
    step, _ = expand(heads("a", ("query", "key", "value"), "x.qkv_"), shapes)
    arrays = [np.random.default_rng(i).normal(size=(4, 2, 3)) for i in range(3)]
    joined = step.forward(arrays)
    assert (step.theirs, joined.shape) == ("x.qkv_weight", (18, 4))
    for name, array in zip(step.ours, arrays, strict=True):
        np.testing.assert_array_equal(step.inverse(joined, name), array)
    # Other heads, same shape there: other tensors here.
    other = dataclasses.replace(step, shapes=((4, 3, 2),) * 3)
    assert other.inverse(joined, step.ours[0]).shape == (4, 3, 2)


def test_a_table_that_does_not_cover_each_tensor_once():
    rules = norm("n", "m")
    with pytest.raises(ValueError, match="does not cover each tensor once: extra"):
        expand(rules, {"n/scale": (2,), "n/bias": (2,), "extra": (3,)})
    twice = [*rules, Rule(("n/bias",), "again", Op("d -> d"))]
    with pytest.raises(ValueError, match="does not cover each tensor once: n/bias"):
        expand(twice, {"n/scale": (2,), "n/bias": (2,)})


@pytest.mark.parametrize("row", CHECKPOINTS, ids=lambda row: row.name)
def test_every_table_covers_every_released_checkpoint(row):
    for steps in (transformers.steps(row.config), open_clip.steps(row.config)):
        assert len({step.theirs for step in steps}) == len(steps)
        ours = [name for step in steps for name in step.ours]
        assert sorted(ours) == sorted(parameter_shapes(row.config))
    image = [name for step in timm.steps(row.config) for name in step.ours]
    assert sorted(image) == sorted(parameter_shapes(row.config.only("image")))


@pytest.mark.parametrize("name", NAMES)
def test_steps_go_there_and_back(name):
    config = case(name).config
    rng = np.random.default_rng(0)
    for steps in (transformers.steps(config), open_clip.steps(config), timm.steps(config)):
        for step in steps:
            arrays = [rng.normal(size=shape) for shape in step.shapes]
            theirs = step.forward(arrays, np.dtype(np.float32))
            assert theirs.shape == step.shape
            for ours, array in zip(step.ours, arrays, strict=True):
                np.testing.assert_array_equal(step.inverse(theirs, ours), array)


def test_the_projection_that_changes_nothing():
    config = case("headless").config
    weight, bias = transformers.steps(config)[-2:]
    np.testing.assert_array_equal(weight.forward([], np.dtype("float32")), np.eye(16))
    np.testing.assert_array_equal(bias.forward([], np.dtype("float32")), np.zeros(16))
    assert not any(
        "head" in step.theirs and "text" in step.theirs for step in open_clip.steps(config)
    )
