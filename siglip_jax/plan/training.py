"""The step of a recipe, lowered for a mesh as `train` runs it, from shapes alone."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from siglip_jax.config import Siglip
from siglip_jax.models import SiglipModel, abstract_inputs
from siglip_jax.plan.flops import training_flops
from siglip_jax.plan.workloads import Workload, shard_bytes
from siglip_jax.preprocessing import Patches
from siglip_jax.programs import FSDP, REPLICATED, make_mesh, sharding_of
from siglip_jax.programs.sharding import DATA, MODEL
from siglip_jax.weights.tree import flatten, nested


def read(path: str | Path, overrides: list[str]) -> Any:
    """The recipe in a file.

    Raises:
      ValueError: as `training.read_recipe`.
    """
    from siglip_jax.training import read_recipe

    return read_recipe(path, overrides)


def training_workload(recipe: Any, devices: Any, config: Siglip | None = None) -> Workload:
    """One step of `recipe` as a `Workload`; its own batch is `recipe.batch`.

    Args:
      recipe: a `training.Recipe`.
      devices: that share a batch.
      config: the architecture, for a recipe whose `init.model` brings it.

    Raises:
      ValueError: if neither the recipe nor `config` says what is trained.

    >>> import jax
    >>> from siglip_jax.training import recipe_from_dict
    >>> recipe = {"steps": 1, "batch": 8, "data": {"train": "x.tar"}}
    >>> recipe |= {"model": {"like": "siglip_b16_224"}}
    >>> workload = training_workload(recipe_from_dict(recipe), jax.devices()[:1])
    >>> workload.task, workload.weights  # float32 weights and the two moments of AdamW
    ('train', 2437871652)
    """
    from siglip_jax.training.lora import abstract_factors, factor_names, merged
    from siglip_jax.training.optimizer import make_optimizer, treatments
    from siglip_jax.training.step import TrainBatch, TrainState, make_loss, make_step, split

    config = recipe.config or config
    if config is None:
        raise ValueError("the recipe's model is unknown; give its configuration")
    mesh = make_mesh(devices)
    model = SiglipModel(config, recipe.execution)
    fsdp = recipe.devices.weights == "fsdp"
    sharding = sharding_of(mesh, FSDP if fsdp else REPLICATED)
    inputs = abstract_inputs(config)
    tree = jax.eval_shape(lambda *xs: model.init(jax.random.key(0), *xs), *inputs)["params"]
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), tree)
    names, whole = list(flatten(params)), lambda params: params
    if lora := recipe.lora:
        params = abstract_factors(params, lora)
        names, whole = factor_names(flatten(params)), lambda params: merged(params, lora)
    trained = treatments(names, recipe.parameters, recipe.optimizer)
    tx = make_optimizer(recipe.optimizer, trained, recipe.steps)

    def begin(params: Any) -> TrainState:
        train = nested(split(params, trained)[0])
        return TrainState(jnp.zeros([], jnp.int32), params, tx.init(train))

    def placed(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        # As `training.step.first_state`: an optimizer's arrays lie where their parameter does.
        keys = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
        start = next((i for i, key in enumerate(keys) if key in ("img", "txt", "t", "b")), None)
        where = NamedSharding(mesh, PartitionSpec())
        if start is not None:
            where = sharding("/".join(keys[start:]), leaf.shape)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    state = jax.tree_util.tree_map_with_path(placed, jax.eval_shape(begin, params))
    step = jax.jit(
        make_step(
            model,
            tx,
            trained,
            make_loss(recipe.loss, mesh),
            mesh,
            accumulate=recipe.accumulate,
            whole=whole,
        ),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), None),
    )
    rows = NamedSharding(mesh, PartitionSpec((DATA, MODEL)))
    cached = recipe.data.cache_images

    def lower(batch: int) -> jax.stages.Lowered:
        image, text = abstract_inputs(config, batch)
        if cached:
            image = jax.ShapeDtypeStruct((batch, config.embed_dim), jnp.float32)
        elif not isinstance(image, Patches):
            image = jax.ShapeDtypeStruct(image.shape, jnp.uint8)

        def split_rows(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows)

        return step.lower(state, jax.tree.map(split_rows, TrainBatch(image, text)))

    def flops(batch: int) -> int:
        return training_flops(
            config,
            batch,
            mesh.size,
            image=None if cached else any(name.startswith("img/") for name in trained),
            text=any(name.startswith("txt/") for name in trained),
            accumulate=recipe.accumulate > 1,
            remat=recipe.execution.remat is not None,
        )

    return Workload(
        task="train",
        devices=mesh.size,
        lower=lower,
        flops=flops,
        weights=shard_bytes(state),
        precision=str(recipe.execution.precision),
        fsdp=fsdp,
    )
