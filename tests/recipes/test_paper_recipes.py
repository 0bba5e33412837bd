"""The paper's own runs: what the recipes say is what it states, and they run at a small size."""

import tomllib

import jax
import pytest
from paths import REPO

from siglip_jax.checkpoints import find
from siglip_jax.plan import make_plan, published_run, training_workload
from siglip_jax.plan.topology import Slice
from siglip_jax.training import read_recipe, recipe_from_dict
from siglip_jax.training.optimizer import treatments
from siglip_jax.weights.layout import parameter_shapes

pytest.importorskip("optax", reason="training needs: pip install '.[train]'")

SIGLIT, FROM_SCRATCH = (REPO / "recipes" / f"{name}.toml" for name in ("siglit", "siglip_b16"))
TINY = {"width": 16, "depth": 2, "mlp_dim": 32, "num_heads": 2}


def small(path):
    """The recipe with tiny towers and a batch of 16; all else is the file's."""
    table = tomllib.loads(path.read_text("utf-8"))
    table["model"].pop("like", None)
    table["model"] |= {
        "image": TINY | {"patch": 8, "res": 16},
        "text": TINY | {"vocab_size": 40, "length": 4},
        "vocabulary": "y",
    }
    table["optimizer"]["warmup"] = 2
    return recipe_from_dict(table | {"batch": 16, "steps": 20})


def test_the_locked_run_is_the_published_one():
    recipe = read_recipe(SIGLIT)
    run = published_run(recipe)
    assert (run.chip, run.chips, run.days, run.less) == ("v4", 4, 2.0, True)
    assert (recipe.batch, recipe.steps) == (20_480, 107_000)
    config = recipe.config
    assert (config.embed_dim, config.text.head, config.text.length) == (1408, 1408, 16)
    names = parameter_shapes(config)
    trained = treatments(names, recipe.parameters, recipe.optimizer)
    assert set(trained) == {name for name in names if not name.startswith("img/")}
    assert recipe.data.cache_images


@pytest.mark.parametrize("change", ["batch=512", "steps=65000", "data.cache_images=false"])
def test_another_run_is_not_the_published_one(change):
    assert published_run(read_recipe(SIGLIT, [change])) is None


def test_from_scratch_is_the_released_architecture_and_40_billion_examples():
    recipe = read_recipe(FROM_SCRATCH)
    assert recipe.config == find("siglip_b16_256").config
    assert recipe.batch == 2**15
    assert abs(recipe.steps * recipe.batch - 40e9) < recipe.batch
    assert not (recipe.init.model or recipe.init.image or recipe.init.text or recipe.parameters)
    assert published_run(recipe) is None


@pytest.mark.parametrize("path", [SIGLIT, FROM_SCRATCH], ids=lambda path: path.stem)
def test_its_step_compiles_at_a_small_size(path):
    devices = jax.devices()
    plan = make_plan(training_workload(small(path), devices), 16, Slice("local", devices, None))
    assert plan.flops > 0 and plan.task == "train"
