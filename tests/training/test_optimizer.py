"""Schedules, per-parameter treatment, and what each optimizer does to a number."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from siglip_jax.training.optimizer import make_optimizer, make_schedule, treatments
from siglip_jax.training.recipe_tables import Optimizer, ParameterRule

NAMES = ("img/embedding/kernel", "img/embedding/bias", "txt/head/kernel", "t", "b")


def nested(value):
    """A tree of the five parameters, each `value(name)`."""
    return {
        "img": {"embedding": {"kernel": value(NAMES[0]), "bias": value(NAMES[1])}},
        "txt": {"head": {"kernel": value(NAMES[2])}},
        "t": value("t"),
        "b": value("b"),
    }


def first_step(rules=(), gradient=2.0, parameter=3.0, steps=10, **changes):
    """The first update of each parameter, by name."""
    plain = {"lr": 0.5, "weight_decay": 0.0, "schedule": "constant", "clip": None}
    optimizer = Optimizer(**plain | changes)
    trained = treatments(NAMES, rules, optimizer)
    tx = make_optimizer(optimizer, trained, steps)
    params, grads = (
        nested(lambda _: jnp.full(2, parameter)),
        nested(lambda _: jnp.full(2, gradient)),
    )
    updates, _ = tx.update(grads, tx.init(params), params)
    flat = jax.tree_util.tree_leaves_with_path(updates)
    return {"/".join(key.key for key in path): float(leaf[0]) for path, leaf in flat}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, {0: 1, 50: 1, 99: 1}),
        ("constant", {"warmup": 10, "cooldown": 20}, {0: 0, 5: 0.5, 10: 1, 80: 1, 90: 0.5, 100: 0}),
        ("linear", {"warmup": 20}, {0: 0, 10: 0.5, 20: 1, 60: 0.5, 100: 0}),
        ("cosine", {}, {0: 1, 25: 0.5 + math.sqrt(2) / 4, 50: 0.5, 100: 0}),
        (
            "cosine",
            {"warmup": 20, "cooldown": 40},
            {10: 0.5, 60: 0.5, 80: 0.25 - 2**0.5 / 8},
        ),
        ("rsqrt", {"timescale": 30}, {0: 1, 90: 0.5, 100: math.sqrt(30 / 130)}),
        ("rsqrt", {"warmup": 10, "timescale": 30}, {5: 0.5, 10: 1, 100: 0.5}),
    ],
)
def test_schedules(name, options, expected):
    schedule = make_schedule(name, 100, **options)
    for step, value in expected.items():
        assert float(schedule(step)) == pytest.approx(value, abs=1e-6), step
    # All steps at once, as a run asks for them.
    whole = np.asarray(schedule(np.arange(100)))
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, [schedule(step) for step in range(100)], rtol=1e-6)


def test_a_run_of_one_step_may_warm_up():
    assert float(make_schedule("cosine", 1, warmup=1)(0)) == 0


def test_adam_and_lion_move_by_the_learning_rate():
    assert first_step() == pytest.approx(dict.fromkeys(NAMES, -0.5))
    assert first_step(gradient=-1e-3, name="lion") == pytest.approx(dict.fromkeys(NAMES, 0.5))


def test_weight_decay_is_of_kernels_and_not_times_the_learning_rate():
    updates = first_step(gradient=0.0, weight_decay=0.01, lr=1e-6)
    assert updates == pytest.approx(dict.fromkeys(NAMES, 0) | dict.fromkeys(NAMES[::2][:2], -0.03))


def test_multipliers_and_the_first_rule_that_fits():
    rules = [
        ParameterRule(pattern="img/.*/bias", lr=0.1, weight_decay=2.0),
        ParameterRule(pattern="img/.*", lr=0.2),
        ParameterRule(pattern="txt/.*", weight_decay=0.0),
        ParameterRule(pattern="t|b", lr=3.0),
    ]
    expected = [-0.1 - 0.03, -0.05 - 0.06, -0.5, -1.5, -1.5]
    assert first_step(rules, weight_decay=0.01) == pytest.approx(
        dict(zip(NAMES, expected, strict=True))
    )


def test_a_schedule_for_some():
    rules = [
        ParameterRule(pattern="img/.*", schedule="linear", warmup=0),
        ParameterRule(pattern="t", cooldown=20),
    ]
    updates = first_step(rules, warmup=4, schedule="constant")
    # Step 0 of a warm-up is none at all; the cool-down of 20 began 10 steps before the run.
    assert updates == pytest.approx({NAMES[0]: -0.5, NAMES[1]: -0.5, NAMES[2]: 0, "t": 0, "b": 0})
    updates = first_step([ParameterRule(pattern="t", cooldown=20)])
    assert updates["t"] == pytest.approx(-0.25) and updates["b"] == pytest.approx(-0.5)


def test_clipping_takes_the_norm_of_all():
    optimizer = Optimizer(name="lion", lr=1.0, clip=1.0, b1=0.0, b2=0.0, weight_decay=0.0)
    tx = make_optimizer(optimizer, treatments(["a", "b"], [], optimizer), 10)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    _, state = tx.update({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, tx.init(params), params)
    # With b2 = 0, Lion's state is the clipped gradient itself.
    kept = optax.tree_utils.tree_get(state, "mu")
    assert [float(leaf[0]) for leaf in kept.values()] == pytest.approx([0.6, 0.8])


def test_adafactor_keeps_rows_and_columns_and_half_precision():
    optimizer = Optimizer(name="adafactor", weight_decay=0.0, clip=None, schedule="constant")
    params = {"kernel": jnp.zeros((64, 32)), "bias": jnp.zeros(32)}
    tx = make_optimizer(optimizer, treatments(params, [], optimizer), 10)
    shapes = {leaf.shape for leaf in jax.tree.leaves(tx.init(params))}
    # Neither a second moment of the kernel nor anything else of its size, but the momentum.
    assert shapes == {(), (1,), (64,), (32,), (64, 32)}
    momentum = optax.tree_utils.tree_get(tx.init(params), "ema")
    assert {leaf.dtype for leaf in momentum.values()} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion"])
def test_every_optimizer_goes_downhill(name):
    optimizer = Optimizer(name=name, lr=0.1, weight_decay=0.0, schedule="linear", b1=0.9)
    goal = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]])}
    tx = make_optimizer(optimizer, treatments(goal, [], optimizer), 150)
    params = jax.tree.map(jnp.zeros_like, goal)

    @jax.jit
    def step(params, state):
        grads = jax.tree.map(jnp.subtract, params, goal)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(150):
        params, state = step(params, state)
    np.testing.assert_allclose(params["kernel"], goal["kernel"], atol=0.02)


def test_a_pattern_that_fits_nothing_is_an_error_that_names_one_that_does():
    with pytest.raises(ValueError, match=r"'img/embeding/.*' fits no parameter") as caught:
        treatments(NAMES, [ParameterRule(pattern="img/embeding/.*")], Optimizer())
    assert "such as img/embedding/" in str(caught.value)
    # A pattern that others leave nothing to is no slip.
    treatments(
        NAMES,
        [ParameterRule(pattern="img/.*"), ParameterRule(pattern="img/embedding/.*")],
        Optimizer(),
    )


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match="everything is frozen"):
        treatments(NAMES, [ParameterRule(pattern=".*", frozen=True)], Optimizer())
