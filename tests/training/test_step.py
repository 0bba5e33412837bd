"""The step alone: exact under accumulation, frozen leaves untouched, laid out as told."""

import collections

import jax
import numpy as np
import optax
import pytest
import shapes
import tiny_checkpoint
from flax.traverse_util import flatten_dict, unflatten_dict
from tolerances import ACCUMULATED_RELATIVE

from siglip_jax.models import SiglipModel
from siglip_jax.programs import sharding
from siglip_jax.programs.sharding import FSDP, REPLICATED, make_mesh
from siglip_jax.training import recipe_from_dict
from siglip_jax.training.optimizer import make_optimizer, treatments
from siglip_jax.training.recipe_tables import Loss, Optimizer, ParameterRule
from siglip_jax.training.step import TrainBatch, first_state, make_loss, make_step

pytestmark = pytest.mark.usefixtures("compiled_once")

BATCH = 16
CONFIG = recipe_from_dict(
    {
        "steps": 1,
        "batch": BATCH,
        "data": {"train": "-"},
        "model": {
            "image": shapes.SIZE | {"patch": 8, "res": 16},
            "text": shapes.SIZE | {"vocab_size": 40, "length": 6},
        },
    }
).config
MODEL = SiglipModel(CONFIG)


@pytest.fixture(scope="module")
def weights():
    """Host arrays, so that no step can give them away."""
    flat = {name: 0.1 * value for name, value in tiny_checkpoint.tensors(CONFIG).items()}
    # At the usual -10, the pairs that do not belong together would hardly count, nor mistakes
    # with them.
    return unflatten_dict(flat | {"b": np.float32([-1])}, sep="/")


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return TrainBatch(
        rng.integers(0, 256, (BATCH, 16, 16, 3), np.uint8),
        rng.integers(2, 40, (BATCH, 6), np.int32),
    )


def prepared(
    weights,
    *,
    optimizer="adamw",
    frozen=None,
    mesh=None,
    rules=REPLICATED,
    loss="sigmoid",
    **options,
):
    """(jitted step, first state)."""
    mesh = mesh or make_mesh(jax.devices()[:1])
    o = Optimizer(name=optimizer, lr=1e-2, schedule="constant")
    freeze = [ParameterRule(pattern=frozen, frozen=True)] if frozen else []
    trained = treatments(flatten_dict(weights, sep="/"), freeze, o)
    tx = make_optimizer(o, trained, 10)
    place = sharding.sharding_of(mesh, rules)
    flat = flatten_dict(weights, sep="/")
    placed = {name: jax.device_put(x, place(name, x.shape)) for name, x in flat.items()}
    params = unflatten_dict(placed, sep="/")
    state = first_state(params, tx, trained, mesh, rules)
    step = make_step(MODEL, tx, trained, make_loss(Loss(name=loss), mesh), mesh, **options)
    where = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(step, donate_argnums=0, out_shardings=(where, None)), state


def plain_gradients(weights, batch, loss):
    """Of the whole batch at once, by the definition, without any of our step."""
    from siglip_jax.training import sigmoid_loss, softmax_loss

    function = {"sigmoid": sigmoid_loss, "softmax": softmax_loss}[loss]

    def value(params):
        images = batch.image.astype(np.float32) / 127.5 - 1
        zimg, ztxt, _ = MODEL.apply({"params": params}, images, batch.text)
        return function(zimg, ztxt, params["t"], params["b"])

    return jax.jit(jax.value_and_grad(value))(weights)


@pytest.mark.parametrize(("loss", "accumulate", "devices"), [("sigmoid", 2, 4), ("softmax", 4, 1)])
def test_a_step_has_the_gradients_of_the_whole_batch(weights, batch, loss, accumulate, devices):
    mesh = make_mesh(jax.devices()[:devices])
    step, state = prepared(weights, mesh=mesh, accumulate=accumulate, loss=loss)
    state, metrics = step(state, batch)
    value, grads = plain_gradients(weights, batch, loss)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(grads)))
    assert float(metrics.loss) == pytest.approx(float(value), rel=ACCUMULATED_RELATIVE)
    assert float(metrics.grad_norm) == pytest.approx(float(norm), rel=ACCUMULATED_RELATIVE)
    # The first step of Adam keeps the gradients themselves in its first moment.
    seen = optax.tree_utils.tree_get(state.opt_state, "mu")
    scale = 0.1 * min(1.0, 1.0 / norm)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
    errors = jax.tree.map(lambda mu, g: float(np.abs(mu / scale - g).max() / largest), seen, grads)
    assert max(jax.tree.leaves(errors)) <= ACCUMULATED_RELATIVE, errors


def test_frozen_leaves_keep_every_bit_and_no_other_does(weights, batch):
    odd = jax.tree.map(np.array, weights)
    # What arithmetic would lose: the sign of zero, and numbers below the normal ones.
    odd["img"]["embedding"]["bias"][:3] = -0.0
    odd["img"]["embedding"]["bias"][3] = np.float32(1e-42)
    before = shapes.bits(odd)
    step, state = prepared(odd, frozen="img/.*|b", accumulate=2)
    addresses = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(addresses)) == len(addresses), "two leaves in one buffer"
    for _ in range(2):
        old = state.params["txt"]["head"]["kernel"]
        state, metrics = step(state, batch)
        assert old.is_deleted(), "the state was not given away"
    after = shapes.bits(state.params)
    assert {name for name in before if before[name] == after[name]} == {
        name for name in before if name.startswith(("['img']", "['b']"))
    }
    assert float(metrics.bias) == -1
    # Nothing is kept for them either.
    kept = {jax.tree_util.keystr(path) for path, _ in paths(state.opt_state)}
    assert kept and not any("img" in name or "'b'" in name for name in kept)


def paths(tree):
    return jax.tree_util.tree_leaves_with_path(tree)


@pytest.mark.parametrize(("optimizer", "kept"), [("adamw", {2}), ("adafactor", {1, 2})])
def test_optimizer_state_lies_where_its_weights_do(weights, batch, monkeypatch, optimizer, kept):
    monkeypatch.setattr(sharding.fsdp_spec, "__defaults__", (512,))
    mesh = make_mesh(jax.devices()[:4], model=2)
    step, state = prepared(weights, optimizer=optimizer, mesh=mesh, rules=FSDP)
    params = flatten_dict(state.params, sep="/")
    split = [name for name, leaf in params.items() if not leaf.sharding.is_fully_replicated]
    assert "img/Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel" in split
    assert "t" not in split and "img/embedding/bias" not in split
    found = collections.Counter()
    for path, leaf in paths(state.opt_state):
        name = "/".join(key.key for key in path if isinstance(key, jax.tree_util.DictKey))
        if name in split and leaf.shape == params[name].shape:
            assert leaf.sharding == params[name].sharding, path
            assert leaf.addressable_shards[0].data.size * mesh.shape["data"] == leaf.size
            found[name] += 1
    # Adam keeps two of each; Adafactor one, and another where there is nothing to factor.
    assert set(found) == set(split) and set(found.values()) == kept
    if optimizer != "adamw":
        return
    planned = jax.tree.map(lambda leaf: leaf.sharding, state)
    for _ in range(3):
        state, _ = step(state, batch)
    assert step._cache_size() == 1, "a step that was compiled twice"
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == planned
