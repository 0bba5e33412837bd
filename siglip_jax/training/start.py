"""Where a run begins: an architecture, its preprocessing, and the first weights."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from siglip_jax.checkpoints import VOCABULARIES
from siglip_jax.config import Siglip
from siglip_jax.data import Pairs
from siglip_jax.found import Found, find_model
from siglip_jax.locate import locate_vocabulary
from siglip_jax.models import SiglipModel, abstract_inputs
from siglip_jax.preprocessing import Profile, Tokenizer
from siglip_jax.pretrained import Pretrained, load
from siglip_jax.programs.sharding import FSDP, REPLICATED, Rules, sharding_of
from siglip_jax.training.recipe import Recipe
from siglip_jax.weights.tree import flatten, nested


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


def warn_of_cut(begin: Start, pairs: Pairs) -> None:
    """Once, of captions that are longer than the context, from a look at some thousands."""
    some = range(0, len(pairs), max(1, len(pairs) // 10_000))
    begin.tokenizer.encode([caption for index in some for caption in pairs.captions(index)])


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
    if recipe.init.model:
        return _load(recipe.init.model, recipe, mesh).params
    towers = {
        part: (source, _tower(source, tower, recipe, model.config))
        for part, tower, source in (
            ("img", "image", recipe.init.image),
            ("txt", "text", recipe.init.text),
        )
        if source
    }
    inputs = abstract_inputs(model.config)

    def init(key: jax.Array) -> Any:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), inputs)
        params = model.init(key, *zeros)["params"]
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)

    key, place = jax.random.key(recipe.seed), sharding_of(mesh, rules(recipe))
    shapes = flatten(jax.eval_shape(init, key))
    shardings = nested({k: place(k, v.shape) for k, v in shapes.items()})
    params = dict(jax.jit(init, out_shardings=shardings)(key))
    for part, (source, found) in towers.items():
        loaded = _load(source, recipe, mesh).params
        params[part] = loaded if found.tower else loaded[part]
    return params


def _load(source: str, recipe: Recipe, mesh: Mesh) -> Pretrained:
    # Weights need no preprocessing, so that files which do not say theirs will do.
    profile = recipe.profile or "big_vision"
    how = rules(recipe)
    return load(
        source,
        profile=profile,
        execution=replace(recipe.execution, weights="float32"),
        mesh=mesh,
        rules=how,
    )


def _tower(source: str, tower: str, recipe: Recipe, config: Siglip) -> Found:
    """The model that a tower comes from, once it is known to fit."""
    found = find_model(source, profile=recipe.profile or "big_vision")
    if found.tower not in (None, tower):
        raise ValueError(f"init.{tower}={source} is an {found.tower} tower")
    theirs = found.config.vision if tower == "image" else found.config.text
    ours = config.vision if tower == "image" else config.text
    if theirs != ours:
        there, here = flatten_dict(asdict(theirs), sep="."), flatten_dict(asdict(ours), sep=".")
        differences = [
            f"{key} is {there.get(key)} there and {here.get(key)} here"
            for key in dict.fromkeys([*here, *there])
            if here.get(key) != there.get(key)
        ]
        raise ValueError(
            f"init.{tower}={source} is another architecture than model.{tower}: "
            + ", ".join(differences)
        )
    named = recipe.model and recipe.model.vocabulary
    same = not (tower == "text" and named and found.vocabulary) or (
        found.vocabulary.read_bytes() == Path(named).expanduser().read_bytes()
    )
    if not same:
        raise ValueError(
            f"init.text={source} was trained with another vocabulary than model.vocabulary="
            f"{named}; its own is {found.vocabulary}"
        )
    return found
