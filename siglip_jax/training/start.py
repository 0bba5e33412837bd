"""Where a run begins: an architecture, its preprocessing, and the first weights."""

import contextlib
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from siglip_jax.checkpoints import VOCABULARIES, find
from siglip_jax.config import Siglip, Tower
from siglip_jax.data import Pairs
from siglip_jax.fetch import fetch_vocabulary, is_path, is_repository
from siglip_jax.model_files import open_model
from siglip_jax.models import SiglipModel, abstract_inputs
from siglip_jax.preprocessing import Profile, Tokenizer, custom_profile
from siglip_jax.pretrained import Pretrained, load
from siglip_jax.programs.sharding import FSDP, REPLICATED, Rules, sharding_of
from siglip_jax.training.recipe import Recipe
from siglip_jax.weights.layout import PREFIX
from siglip_jax.weights.tree import flatten, nested


class Start(NamedTuple):
    """Where a run begins.

    `vocabulary` is a sentencepiece file; `tokenizer` has read it. `repository` is what the hub
    calls the model of `init.model`, if that is one of it.
    """

    model: SiglipModel
    profile: Profile
    vocabulary: Path
    tokenizer: Tokenizer
    repository: str | None = None


def start(recipe: Recipe) -> Start:
    """The model of a recipe. Reads no weights.

    Raises:
      ValueError: if there is no such model, or no vocabulary for it.
    """
    vocabulary: Path | None = None
    if recipe.init.model:
        with open_model(recipe.init.model) as opened:
            config, vocabulary = opened.config, opened.vocabulary
        if config.tower:
            raise ValueError(
                f"init.model={recipe.init.model} is an {config.tower} tower alone; give it as "
                f"init.{config.tower}"
            )
        if note := opened.profile_note():
            warnings.warn(f"init.model={recipe.init.model}: {note}", stacklevel=2)
        profile = opened.profile_named()
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
        vocabulary = fetch_vocabulary(VOCABULARIES[profile.text.vocabulary])
    repository = _repository(recipe.init.model) if recipe.init.model else None
    return Start(model, profile, vocabulary, Tokenizer(vocabulary, profile.text), repository)


def _repository(name: str) -> str | None:
    """Never a path: it would say where on this machine a model lay."""
    if is_path(Path(name).expanduser()):
        return None
    try:
        return find(name).hf
    except ValueError:
        return name.removeprefix("hf-hub:") if is_repository(name) else None


def warn_of_cut(begin: Start, pairs: Pairs) -> None:
    """Once, of captions that are longer than the context, from a look at some thousands."""
    some: list[str] = []
    for index in range(0, len(pairs), max(1, len(pairs) // 10_000)):
        with contextlib.suppress(ValueError):  # what cannot be read is counted when it is met
            some += pairs.captions(index)
    begin.tokenizer.encode(some)


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
    towers: dict[Tower, str | None] = {"image": recipe.init.image, "text": recipe.init.text}
    for tower, source in towers.items():
        if source:
            _check_tower(source, tower, recipe, model.config)
    inputs = abstract_inputs(model.config)

    def init(key: jax.Array) -> Any:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), inputs)
        params = model.init(key, *zeros)["params"]
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)

    key, place = jax.random.key(recipe.seed), sharding_of(mesh, rules(recipe))
    shapes = flatten(jax.eval_shape(init, key))
    shardings = nested({k: place(k, v.shape) for k, v in shapes.items()})
    params = dict(jax.jit(init, out_shardings=shardings)(key))
    for tower, source in towers.items():
        if source:
            part = PREFIX[tower]
            params[part] = _load(source, recipe, mesh).params[part]
    return params


def _load(source: str, recipe: Recipe, mesh: Mesh) -> Pretrained:
    with open_model(source) as opened:
        return load(
            opened,
            # Weights need no preprocessing, so that files which do not say theirs will do.
            profile=recipe.profile or custom_profile(opened.config, pad=0),
            execution=replace(recipe.execution, weights="float32"),
            mesh=mesh,
            rules=rules(recipe),
        )


def _check_tower(source: str, tower: Tower, recipe: Recipe, config: Siglip) -> None:
    """Raises a ValueError unless the model that a tower comes from fits."""
    with open_model(source) as found:
        if found.tower not in (None, tower):
            raise ValueError(f"init.{tower}={source} is an {found.tower} tower")
    theirs = found.config.image_tower if tower == "image" else found.config.text_tower
    ours = config.image_tower if tower == "image" else config.text_tower
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
