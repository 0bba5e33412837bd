"""LoRA: only the factors move; merged, the model is what it was trained as; PEFT's form too."""

import json

import jax
import numpy as np
import pytest
import shapes

from siglip_jax.model_files import open_model
from siglip_jax.plan.training import training_workload
from siglip_jax.pretrained import load
from siglip_jax.programs.sharding import make_mesh
from siglip_jax.training import recipe_from_dict
from siglip_jax.training.lora import Sizes, merged, targets, with_factors
from siglip_jax.training.recipe_tables import Lora
from siglip_jax.weights.load import load_params
from siglip_jax.weights.tree import flatten

pytestmark = pytest.mark.usefixtures("compiled_once")


def recipe(known, **changes):
    table = {key: value for key, value in known.table.items() if key not in ("model", "evaluate")}
    return (
        table
        | {
            "steps": 12,
            "batch": 48,  # all pairs, so that losses can be compared
            "seed": 3,
            "init": {"model": str(known.result.model)},
            "lora": {"rank": 2, "alpha": 4, "targets": ["query", "out", "txt/.*/Dense_1"]},
            "optimizer": {"lr": 2e-3, "schedule": "constant"},
        }
        | changes
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled_once):
    known = shapes.trained_model()
    folder = tmp_path_factory.mktemp("lora")
    result = shapes.trained(folder, recipe(known), mesh=make_mesh(jax.devices()[:1]))
    return known, folder / "run", result


def test_only_the_targets_move(run):
    known, _, result = run
    before, after = (flatten(load(m).params) for m in (known.result.model, result.model))
    assert before.keys() == after.keys()
    moved = {n for n in before if not np.array_equal(before[n], after[n])}
    ends = ("query/kernel", "out/kernel")
    expected = {n for n in before if "encoderblock" in n and n.endswith(ends)}
    expected |= {n for n in before if n.startswith("txt/") and n.endswith("Dense_1/kernel")}
    assert moved == expected and len(moved) == 5


def test_the_loss_falls(run):
    _, folder, _ = run
    losses = [line["loss"] for line in shapes.journal(folder) if "loss" in line]
    assert losses[-1] < losses[0]


def test_the_adapter_on_the_base_is_the_merged_model(run):
    known, folder, result = run
    with open_model(folder / "adapter", base=known.result.model) as opened:
        ours = flatten(load_params(opened.reader, opened.config))
    whole = flatten(load(result.model).params)
    for name, leaf in whole.items():
        np.testing.assert_allclose(ours[name], leaf, rtol=0, atol=1e-6, err_msg=name)
    card = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (card["r"], card["lora_alpha"]) == (2, 4)
    # Where the base lies on this machine is nobody's business.
    assert card["base_model_name_or_path"] is None


def test_an_interrupted_run_goes_on_to_the_same_weights(run, tmp_path):
    import os
    import signal

    known, _, result = run

    def stop(progress):
        if progress.what == "training" and progress.done == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    mesh = make_mesh(jax.devices()[:1])
    assert not shapes.trained(tmp_path, recipe(known), mesh=mesh, report=stop).finished
    again = shapes.trained(tmp_path, recipe(known), mesh=mesh)
    assert shapes.bits(load(again.model).params) == shapes.bits(load(result.model).params)


@pytest.mark.parametrize("scan", [False, True])
def test_it_begins_as_the_model_was_and_merges_as_written(scan):
    """In scan form each layer has factors of its own."""
    from siglip_jax.config import Execution

    execution = Execution(scan_image=scan, scan_text=scan)
    params = load(shapes.trained_model().result.model, execution=execution).params
    lora, mesh = Lora(rank=3, alpha=6.0, targets=("value", "out")), make_mesh(jax.devices()[:1])
    tree = with_factors(params, lora, 0, mesh, ((".*", "replicate"),))
    assert shapes.bits(merged(tree, lora)) == shapes.bits(params)
    flat = flatten(tree)
    rng = np.random.default_rng(0)
    for name in flat:
        if name.endswith("lora_b"):
            flat[name] = rng.standard_normal(flat[name].shape).astype(np.float32)
    from siglip_jax.weights.tree import nested

    after, before = flatten(merged(nested(flat), lora)), flatten(params)
    for name in before:
        kernel = np.asarray(before[name])
        layer = name.removesuffix("/kernel")
        if f"{layer}/lora_a" in flat:
            a, b = np.asarray(flat[f"{layer}/lora_a"]), np.asarray(flat[f"{layer}/lora_b"])
            kernel = kernel + 2 * (a @ b).reshape(kernel.shape)
        np.testing.assert_allclose(after[name], kernel, rtol=0, atol=1e-5)
    assert sum(name.endswith("lora_a") for name in flat) == 4


def test_sizes_of_layers():
    block = "img/Transformer/encoderblock/MultiHeadDotProductAttention_0"
    found = targets(
        Lora(rank=1, targets=("query", "out")),
        {f"{block}/query/kernel": (5, 8, 2, 4), f"{block}/out/kernel": (5, 2, 4, 8)},
    )
    assert list(found.values()) == [Sizes(8, 8, 5), Sizes(8, 8, 5)]


def test_planned_as_it_is_trained():
    known = shapes.trained_model()
    table = recipe(known)
    with open_model(known.result.model) as opened:
        config = opened.config
    some = training_workload(recipe_from_dict(table), jax.devices()[:1], config)
    all_of_it = {key: value for key, value in table.items() if key != "lora"}
    whole = training_workload(recipe_from_dict(all_of_it), jax.devices()[:1], config)
    # No moments of frozen weights.
    assert some.weights < 0.5 * whole.weights
    some.lower(24)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 0}, "lora.rank must be at least 1, got 0"),
        ({"rank": 2, "alpha": 0.0}, "lora.alpha must be above 0"),
        ({"rank": 2, "targets": []}, "lora.targets names no layer"),
        ({"rank": 2, "targets": ["("]}, r"lora.targets: '\(' is no regular expression"),
        ({"alpha": 2.0}, "lora.rank is missing"),
        ({"rank": 2, "target": ["query"]}, "lora.target is unknown; did you mean targets"),
    ],
)
def test_what_a_recipe_must_say(lora, message):
    table = {"steps": 1, "batch": 1, "data": {"train": "x"}, "init": {"model": "m"}, "lora": lora}
    with pytest.raises(ValueError, match=message):
        recipe_from_dict(table)


def test_it_needs_a_trained_model(data):
    with pytest.raises(ValueError, match=r"\[lora\] adds to a trained model; name it as init"):
        recipe_from_dict(shapes.recipe(data) | {"lora": {"rank": 2}})


def test_a_target_that_fits_nothing(tmp_path):
    known = shapes.trained_model()
    table = recipe(known, lora={"rank": 2, "targets": ["q_proj"]})
    with pytest.raises(ValueError, match=r"'q_proj' fits no layer of a block; there are Dense_0"):
        shapes.trained(tmp_path, table, mesh=make_mesh(jax.devices()[:1]))
