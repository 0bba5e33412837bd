"""Where runs begin: at random, from any checkpoint, or with a tower of each of two."""

import jax
import numpy as np
import pytest
import shapes
import tiny_checkpoint
from flax.traverse_util import flatten_dict, unflatten_dict

from siglip_jax.converters import convert
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import custom_profile
from siglip_jax.pretrained import save
from siglip_jax.programs.sharding import make_mesh
from siglip_jax.training import recipe_from_dict
from siglip_jax.training.start import first_weights, start

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def table(data):
    return shapes.recipe(data)


@pytest.fixture(scope="module")
def config(table):
    return recipe_from_dict(table).config


def written(folder, config, seed, vocabulary=None):
    """(tensors, a folder that `save` wrote) of a model at random."""
    flat = tiny_checkpoint.tensors(config, seed=seed)
    params, profile = unflatten_dict(flat, sep="/"), custom_profile(config, pad=1)
    save(folder, SiglipModel(config), params, profile=profile, vocabulary=vocabulary)
    return flat, str(folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory, config):
    return written(tmp_path_factory.mktemp("one") / "m", config, seed=1)


@pytest.fixture(scope="module")
def other(tmp_path_factory, config):
    return written(tmp_path_factory.mktemp("other") / "m", config, seed=2)


def begun(table, devices=1):
    recipe = recipe_from_dict(table)
    begin = start(recipe)
    params = first_weights(recipe, begin.model, make_mesh(jax.devices()[:devices]))
    return begin, flatten_dict(params, sep="/")


def same(params, flat, part):
    names = [name for name in flat if name.startswith(part)]
    assert names
    return all(np.asarray(params[name]).tobytes() == flat[name].tobytes() for name in names)


def test_a_tower_of_each(table, one, other, tmp_path):
    _, fresh = begun(table)
    init = {"image": one[1], "text": other[1]}
    _, both = begun(table | {"init": init})
    assert same(both, one[0], "img/") and same(both, other[0], "txt/")
    assert float(both["t"][0]) == float(fresh["t"][0]) != one[0]["t"][0]

    # One of the two, from the format of another system. The rest is what it would have been.
    convert(one[1], tmp_path / "hf", to="transformers")
    _, mixed = begun(table | {"init": {"image": str(tmp_path / "hf")}})
    assert same(mixed, one[0], "img/")
    rest = {name: np.asarray(leaf) for name, leaf in fresh.items() if name[:4] != "img/"}
    assert same(mixed, rest, "")


def test_the_same_weights_on_any_devices(table):
    _, alone = begun(table)
    _, eight = begun(table | {"devices": {"weights": "fsdp"}}, devices=8)
    assert same(eight, {name: np.asarray(leaf) for name, leaf in alone.items()}, "")
    assert alone["t"] == np.log(np.float32(10)) and alone["b"] == -10


def test_all_parameters_are_float32_whatever_the_model_is_stored_in(table, data, config, tmp_path):
    flat = {
        name: array.astype(np.float16) for name, array in tiny_checkpoint.tensors(config).items()
    }
    params, profile = unflatten_dict(flat, sep="/"), custom_profile(config, pad=1)
    save(
        *(tmp_path / "half", SiglipModel(config), params),
        profile=profile,
        vocabulary=data / "shapes.model",
    )
    plain = {name: table[name] for name in ("steps", "batch", "data")}
    _, begun_with = begun(plain | {"init": {"model": str(tmp_path / "half")}})
    assert same(begun_with, {name: array.astype(np.float32) for name, array in flat.items()}, "")


def test_all_of_a_model(table, data, one):
    plain = {name: table[name] for name in ("steps", "batch", "data")}
    trained = shapes.trained_model()
    begin, params = begun(plain | {"init": {"model": str(trained.result.model)}})
    weights = flatten_dict(trained.result.params, sep="/")
    assert same(params, {name: np.asarray(leaf) for name, leaf in weights.items()}, "")
    assert begin.vocabulary.read_bytes() == (data / "shapes.model").read_bytes()
    assert begin.model.config == recipe_from_dict(table).config


def test_another_architecture(table, one, monkeypatch):
    monkeypatch.setattr(jax, "jit", None)  # it is noticed before anything is compiled
    model = table["model"]
    deep = model | {"image": model["image"] | {"depth": 2, "res": 24}}
    with pytest.raises(ValueError, match=r"another architecture than model.image: ") as caught:
        begun(table | {"model": deep, "init": {"image": one[1]}})
    assert str(caught.value).endswith(
        ": size.depth is 1 there and 2 here, res is 16 there and 24 here"
    )
    short = model | {"text": model["text"] | {"length": 15}}
    with pytest.raises(ValueError, match=r"model.text: length is 16 there and 15 here"):
        begun(table | {"model": short, "init": {"text": one[1]}})


def test_another_vocabulary(table, config, tmp_path):
    other = shapes.write_vocabulary(tmp_path / "other.model", sentences=["red ring"] * 9)
    _, source = written(tmp_path / "m", config, 3, vocabulary=other)
    with pytest.raises(ValueError, match=r"was trained with another vocabulary than model.vocab"):
        begun(table | {"init": {"text": source}})
    begun(table | {"init": {"image": source}})


def test_a_tower_where_another_or_both_are_wanted(table, one, tmp_path):
    image = {name: value for name, value in one[0].items() if name.startswith("img/")}
    convert(one[1], tmp_path / "image", to="siglip_jax", tower="image")
    tower = str(tmp_path / "image")
    _, params = begun(table | {"init": {"image": tower}})
    assert same(params, image, "img/")
    with pytest.raises(ValueError, match=r"is an image tower$"):
        begun(table | {"init": {"text": tower}})
    plain = {name: table[name] for name in ("steps", "batch", "data")}
    with pytest.raises(ValueError, match=r"is an image tower alone; give it as init\.image"):
        begun(plain | {"init": {"model": tower}})


def test_models_and_vocabularies_that_are_not_there(table, one):
    with pytest.raises(ValueError, match=r"no released checkpoint .* did you mean ViT-B-16-SigLIP"):
        begun(table | {"init": {"text": "ViT-B-16-SigLP"}})
    model = {name: value for name, value in table["model"].items() if name != "vocabulary"}
    with pytest.raises(ValueError, match=r"model\.vocabulary is missing"):
        begun(table | {"model": model})
    with pytest.raises(ValueError, match="vocabulary cannot be read"):
        begun(table | {"model": model | {"vocabulary": "nowhere.model"}})


def test_scanned_layers_begin_with_the_same_weights(table, one):
    execution = {"scan_image": True, "scan_text": True}
    _, params = begun(table | {"execution": execution, "init": {"image": one[1]}})
    stacked = params["img/Transformer/encoderblock/MlpBlock_0/Dense_0/kernel"]
    layer = one[0]["img/Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel"]
    assert np.array_equal(stacked, layer[None])
