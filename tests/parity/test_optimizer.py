"""Twenty steps of our optimizers beside big_vision's own `optax.make`.

Needs a checkout of big_vision on PYTHONPATH.
"""

import jax
import numpy as np
import optax
import pytest

from siglip_jax.training.optimizer import make_optimizer, treatments
from siglip_jax.training.recipe_tables import Optimizer, ParameterRule

pytest.importorskip("big_vision.optax", reason="needs a big_vision checkout on PYTHONPATH")
config_dict = pytest.importorskip("ml_collections").ConfigDict

STEPS = 20
SHAPES = {
    "img": {"embedding": {"kernel": (40, 48), "bias": (48,)}, "pos_embedding": (1, 9, 48)},
    "txt": {"head": {"kernel": (48, 33), "bias": (33,)}},
    "t": (1,),
    "b": (1,),
}
SCALING_VIT = {"optax_name": "big_vision.scale_by_adafactor", "optax": {"beta2_cap": 0.95}}
ADAM = {"optax_name": "scale_by_adam", "optax": {"b1": 0.9, "b2": 0.95}}
# Ours, big_vision's, rules, frozen by them.
CASES = {
    "adam": (
        {"name": "adamw"},
        ADAM | {"schedule": {"decay_type": "cosine"}},
        (),
    ),
    "no_clipping_no_decay": (
        {"name": "adamw", "clip": None, "weight_decay": 0.0, "schedule": "linear"},
        ADAM | {"grad_clip_norm": None, "wd": None, "schedule": {"decay_type": "linear"}},
        (),
    ),
    "adafactor_rsqrt": (
        {"name": "adafactor", "schedule": "rsqrt", "warmup": 5, "cooldown": 6, "timescale": 8},
        SCALING_VIT
        | {
            "schedule": {
                "decay_type": "rsqrt",
                "warmup_steps": 5,
                "cooldown_steps": 6,
                "timescale": 8,
            }
        },
        (),
    ),
    "lion": (
        {"name": "lion", "b2": 0.99, "warmup": 3},
        {
            "optax_name": "scale_by_lion",
            "optax": {"b1": 0.9, "b2": 0.99},
            "schedule": {"decay_type": "cosine", "warmup_steps": 3},
        },
        (),
    ),
    "multipliers": (
        {"name": "adamw", "warmup": 2},
        ADAM
        | {
            "schedule": {"decay_type": "cosine", "warmup_steps": 2},
            "lr_mults": [("img/.*", 0.1), (".*", 1.0)],
            "wd_mults": [("img/.*", 0.5), (".*/kernel", 1.0), (".*", 0.0)],
        },
        (ParameterRule(pattern="img/.*", lr=0.1, weight_decay=0.5),),
    ),
    "locked_image_tower": (
        {"name": "adafactor", "warmup": 2},
        SCALING_VIT
        | {
            "schedule": [
                ("img/.*", None),
                ("t", {"decay_type": "linear"}),
                (".*", {"decay_type": "cosine", "warmup_steps": 2}),
            ]
        },
        (
            ParameterRule(pattern="img/.*", frozen=True),
            ParameterRule(pattern="t", schedule="linear", warmup=0),
        ),
    ),
}


def filled(shapes, rng, scale=1.0):
    return jax.tree.map(
        lambda shape: (scale * rng.standard_normal(shape)).astype(np.float32),
        shapes,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )


def names_of(tree):
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): leaf for path, leaf in flat}


def walk(tx, params, gradients, pick):
    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for grads in gradients:
        params, state = step(params, state, pick(grads))
    return names_of(params)


@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_equal_big_visions(name):
    import big_vision.optax

    ours, theirs, rules = CASES[name]
    rng = np.random.default_rng(0)
    params = filled(SHAPES, rng)
    # Some beyond the clipping norm, some within.
    gradients = [filled(SHAPES, rng, 10.0 ** rng.uniform(-4, 1)) for _ in range(STEPS)]

    config = config_dict({"lr": 1e-2, "wd": 1e-3, "grad_clip_norm": 1.0} | theirs)
    tx, _ = big_vision.optax.make(config, params, sched_kw={"total_steps": STEPS})
    expected = walk(tx, params, gradients, lambda grads: grads)

    optimizer = Optimizer(**{"lr": 1e-2, "weight_decay": 1e-3, "clip": 1.0} | ours)
    trained = treatments(names_of(params), rules, optimizer)

    def pick(tree):
        kept = {path: leaf for path, leaf in names_of(tree).items() if path in trained}
        nested = {}
        for path, leaf in kept.items():
            *folders, last = path.split("/")
            where = nested
            for folder in folders:
                where = where.setdefault(folder, {})
            where[last] = leaf
        return nested

    got = walk(make_optimizer(optimizer, trained, STEPS), pick(params), gradients, pick)
    start = names_of(params)
    for path, value in expected.items():
        if path in trained:
            assert np.abs(value - start[path]).max() > 1e-4
            np.testing.assert_allclose(got[path], value, rtol=1e-6, atol=1e-6)
        else:
            assert np.asarray(value).tobytes() == start[path].tobytes()
