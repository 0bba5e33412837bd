"""Weights stored in half precision mean the numbers that they hold, computed in float32."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from tiny_checkpoint import CONFIG, tensors, written
from tolerances import EMBEDDING, LOGIT_RELATIVE
from towers import NAMES, case

import siglip_jax
from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel, logits
from siglip_jax.preprocessing import custom_profile
from siglip_jax.weights.load import load_params
from siglip_jax.weights.tree import flatten, nested

HALVES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def cast(params, dtype):
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype), params)


def outputs(tiny, params):
    execution = dataclasses.replace(tiny.execution, dtype="float32")
    model = SiglipModel(tiny.config, execution)
    zimg, ztxt, out = jax.jit(model.apply)({"params": params}, tiny.images, tiny.texts)
    return {
        "zimg": zimg,
        "ztxt": ztxt,
        "t": out["t"],
        "b": out["b"],
        "posemb": out["img/with_posemb"],
        "embedded": out["txt/embedded"],
        "logits": logits(zimg, ztxt, params["t"], params["b"]),
    }


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "bfloat16") for name in NAMES), ("loop", "float16"), ("naflex", "float16")],
)
def test_outputs_are_those_of_the_weights_in_float32(name, dtype):
    tiny = case(name)
    half = cast(tiny.params, HALVES[dtype])
    ours, exact = outputs(tiny, half), outputs(tiny, cast(half, np.float32))
    for key, want in exact.items():
        assert ours[key].dtype == jnp.float32, key
        if key == "logits":
            atol = LOGIT_RELATIVE * np.abs(want).max()
        else:
            atol = EMBEDDING * max(1, float(np.abs(want).max()))
        np.testing.assert_allclose(ours[key], want, rtol=0, atol=atol, err_msg=key)


def test_there_is_one_copy_as_it_was_stored(tmp_path):
    items = {name: array.astype(np.float16) for name, array in tensors().items()}
    params = flatten(load_params(written(tmp_path / "x.npz", items), CONFIG))
    assert {leaf.dtype for leaf in params.values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "float16", "int8"])
def test_the_temperature_is_float32_however_weights_are_kept(tmp_path, weights):
    items = {name: array.astype(np.float16) for name, array in tensors().items()}
    path = written(tmp_path / "x.npz", items)
    params = load_params(path, CONFIG, weights=weights)
    for name in ("t", "b"):
        assert params[name].dtype == jnp.float32
        assert params[name] == items[name]
    if weights != "int8":
        assert params["txt"]["head"]["kernel"].dtype == jnp.dtype(weights)


def test_a_position_embedding_is_resampled_in_float32(tmp_path):
    items = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors().items()}
    exact = {name: array.astype(np.float32) for name, array in items.items()}
    larger = CONFIG.at_resolution(48)
    ours, want = (
        load_params(written(tmp_path / name, arrays), larger, resize_posemb=True)["img"]
        for name, arrays in (("half.npz", items), ("exact.npz", exact))
    )
    np.testing.assert_array_equal(ours["pos_embedding"], want["pos_embedding"])


def half_model(folder):
    """A saved model of float16, temperature and bias too."""
    model = SiglipModel(CONFIG)
    params = {name: array.astype(np.float16) / 4 for name, array in tensors().items()}
    tree = nested(params)
    return siglip_jax.save(folder, model, tree, profile=custom_profile(CONFIG, pad=1))


def losses(model, params, steps=4):
    """Of a plain loop of optax: Adam, as anyone would write it."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    texts = rng.integers(0, 50, (4, 16)).astype(np.int32)
    tx = optax.adam(1e-3)

    def loss(params):
        zimg, ztxt, _ = model.apply({"params": params}, images, texts)
        return -jax.nn.log_softmax(logits(zimg, ztxt, params["t"], params["b"])).trace()

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    state, values = tx.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state)
        values.append(float(value))
    return values


def test_a_plain_loop_trains_float32_or_says_what_to_do(tmp_path):
    half_model(tmp_path / "half")
    stored = siglip_jax.load(tmp_path / "half")
    with pytest.raises(ValueError, match=r"float16, .*not finite; load .* dtype='float32', or"):
        losses(stored.model, stored.params)
    wide = siglip_jax.load(tmp_path / "half", dtype="float32")
    found = losses(wide.model, wide.params)
    assert np.isfinite(found).all() and found[-1] < found[0]
    # Told to, it trains float16, and ends as it must.
    told = siglip_jax.load(tmp_path / "half", execution=Execution(weights="float16"))
    assert not np.isfinite(losses(told.model, told.params)).all()


def test_gradients_of_images_need_no_other_weights(tmp_path):
    half_model(tmp_path / "half")
    stored = siglip_jax.load(tmp_path / "half")

    def first(images):
        return stored.model.apply({"params": stored.params}, images)[0][0, 0]

    assert np.isfinite(jax.jit(jax.grad(first))(jnp.ones((1, 32, 32, 3)))).all()
