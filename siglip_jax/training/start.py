"""Where a run begins: an architecture, its preprocessing, and the first weights."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from siglip_jax.checkpoints import VOCABULARIES
from siglip_jax.config import Execution, Siglip
from siglip_jax.found import find_model
from siglip_jax.locate import locate_vocabulary
from siglip_jax.models import SiglipModel, abstract_inputs
from siglip_jax.preprocessing import Profile, Tokenizer
from siglip_jax.pretrained import load
from siglip_jax.scoring.sharding import FSDP, REPLICATED, Rules, sharding_of
from siglip_jax.training.recipe import Recipe


class Start(NamedTuple):
    """`vocabulary` is a sentencepiece file; `tokenizer` has read it."""

    model: SiglipModel
    profile: Profile
    vocabulary: Path
    tokenizer: Tokenizer


def start(recipe: Recipe) -> Start:
    """The model of a recipe. Reads no weights.

    Raises:
      ValueError: if there is no such model, or no vocabulary for it.
    """
    vocabulary: Path | None = None
    if recipe.init.model:
        found = find_model(recipe.init.model)
        if found.tower:
            raise ValueError(
                f"init.model={recipe.init.model} is an {found.tower} tower alone; give it as "
                f"init.{found.tower}"
            )
        config, profile, vocabulary = found.config, found.profile, found.vocabulary
        model = SiglipModel(config, recipe.execution)
    else:
        config, profile = _of(recipe)
        assert recipe.model, "a recipe has one or the other"
        model = SiglipModel(
            config,
            recipe.execution,
            temperature_init=recipe.model.temperature,
            bias_init=recipe.model.bias,
        )
        if recipe.model.vocabulary:
            vocabulary = Path(recipe.model.vocabulary).expanduser()
    if vocabulary is None:
        if profile.text.vocabulary is None:
            raise ValueError("model.vocabulary is missing: the sentencepiece file of the captions")
        vocabulary = locate_vocabulary(VOCABULARIES[profile.text.vocabulary])
    return Start(model, profile, vocabulary, Tokenizer(vocabulary, profile.text))


def _of(recipe: Recipe) -> tuple[Siglip, Profile]:
    config, profile = recipe.config, recipe.profile
    assert config and profile, "a recipe without init.model has a [model]"
    return config, profile


def rules(recipe: Recipe) -> Rules:
    """How weights and optimizer state lie on the devices."""
    return FSDP if recipe.devices.weights == "fsdp" else REPLICATED


def first_weights(recipe: Recipe, model: SiglipModel, mesh: Mesh) -> Any:
    """The tree of float32 parameters before the first step, on the devices of `mesh`.

    Raises:
      ValueError: if weights to begin with cannot be read or belong to another architecture.
    """
    place = sharding_of(mesh, rules(recipe))
    if recipe.init.model:
        return _load(recipe.init.model, recipe.execution, mesh, rules(recipe)).params
    inputs = abstract_inputs(model.config)

    def init(key: jax.Array) -> Any:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), inputs)
        params = model.init(key, *zeros)["params"]
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)

    key = jax.random.key(recipe.seed)
    shapes = flatten_dict(jax.eval_shape(init, key), sep="/")
    shardings = unflatten_dict({k: place(k, v.shape) for k, v in shapes.items()}, sep="/")
    params = dict(jax.jit(init, out_shardings=shardings)(key))
    for part, tower, source in (
        ("img", "image", recipe.init.image),
        ("txt", "text", recipe.init.text),
    ):
        if source:
            params[part] = _tower(source, part, tower, recipe, model.config, mesh)
    return params


def _load(source: str, execution: Execution, mesh: Mesh, how: Rules) -> Any:
    return load(source, execution=execution, dtype="float32", mesh=mesh, rules=how)


def _tower(
    source: str, part: str, tower: str, recipe: Recipe, config: Siglip, mesh: Mesh
) -> dict[str, Any]:
    found = find_model(source)
    if found.tower not in (None, tower):
        raise ValueError(f"init.{tower}={source} is an {found.tower} tower")
    theirs = found.config.vision if tower == "image" else found.config.text
    ours = config.vision if tower == "image" else config.text
    if theirs != ours:
        there, here = dataclasses.asdict(theirs), dataclasses.asdict(ours)
        keys = [k for k in here if here[k] != there.get(k)]
        raise ValueError(
            f"init.{tower}={source} is another architecture than model.{tower}: "
            + ", ".join(f"{k} is {there.get(k)} there and {here[k]} here" for k in keys)
        )
    params = _load(source, recipe.execution, mesh, rules(recipe)).params
    return params if found.tower else params[part]
