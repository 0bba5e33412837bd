"""`--res` where weights say their size, do not say it, or are as another model but for it."""

import json

import numpy as np
import pytest
from saved_model import VOCABULARY, with_vocabulary

from siglip_jax.converters import convert
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import custom_profile
from siglip_jax.pretrained import save

pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture
def bare(model, tmp_path):
    """The tiny model of 32 px (4 patches of 8 a side), which this file does not say."""
    convert(model, tmp_path / "bare.npz", to="npz")
    return "bare.npz"


@pytest.fixture
def larger(tmp_path):
    """Weights alone of the same model for 64 px."""
    model, params, _ = with_vocabulary()
    config = model.config.at_resolution(64)
    table = np.random.default_rng(5).normal(size=(1, 64, config.vision.size.width))
    params["img"]["pos_embedding"] = table.astype(np.float32)
    profile = custom_profile(config, 1)
    save("64", SiglipModel(config), params, profile=profile, vocabulary=VOCABULARY)
    convert("64", tmp_path / "64-hf", to="transformers")
    return (tmp_path / "64-hf" / "model.safetensors").rename(tmp_path / "larger.safetensors")


def flops(cli, *argv):
    """Of the only program or tower."""
    (found,) = next(value for value in json.loads(cli(*argv)[1]).values() if type(value) is list)
    return found["flops"]


def test_plan_and_bench_take_the_size_of_weights_that_do_not_say_it(cli, bare):
    plan = ("plan", bare, "--on", "local", "--batch-size", 8, "--task", "images", "--no-search")
    code, _, err = cli(*plan)
    assert code == 2 and err[-1].endswith("give --res 32 (or up to 39)")
    assert cli(*plan, "--res", 32)[0] == 0
    bench = ("bench", "--model", bare, "--batch-size", 8, "--tower", "image", "--seconds", 0)
    code, _, err = cli(*bench)
    assert code == 2 and err[-1].endswith("give --res 32 (or up to 39)")
    assert cli(*bench, "--res", 32)[0] == 0


def test_plan_and_bench_at_another_size(cli, model):
    """As they compile shapes, and no weights are asked for."""
    options = ("--batch-size", 8, "--json")
    plan = ("plan", model, "--on", "local", "--task", "images", "--no-search", *options)
    assert flops(cli, *plan, "--res", 64) > 3 * flops(cli, *plan, "--res", 32)
    bench = ("bench", "--model", model, "--tower", "image", "--seconds", 0, *options)
    assert flops(cli, *bench, "--res", 64) > 3 * flops(cli, *bench, "--res", 32)


@pytest.mark.parametrize(
    "argv",
    ["show {model}", "show siglip_b16_224", "diff {model} {model}", "convert {model} x --to npz"],
)
def test_commands_that_keep_the_size_refuse_another(cli, model, argv):
    size = 224 if "b16" in argv else 32
    code, out, err = cli(*argv.format(model=model).split(), "--res", 64)
    assert (code, out) == (2, "") and err == [
        "siglip-jax: error: --res 64: it is for weights that do not say their size; these take "
        f"images of {size} px"
    ]
    assert cli("show", *([model] if size == 32 else ["siglip_b16_224"]), "--res", size)[0] == 0


def test_as_another_model_but_for_its_size(cli, model, larger, pictures):
    like = ("--architecture", model, "--tower", "image", "--res", 64)
    assert json.loads(cli("show", larger, *like, "--json")[1])["res"] == 64
    assert cli("convert", larger, "own", "--to", "siglip_jax", *like)[0] == 0
    assert cli("diff", "own", larger, *like)[0] == 0
    z = []
    for name, options in (("a.npz", (larger, *like)), ("b.npz", ("64", "--tower", "image"))):
        assert cli("embed", pictures, "--model", *options, "--out", name)[0] == 0
        z.append(np.load(name)["zimg"])
    np.testing.assert_array_equal(*z)
    code, _, err = cli("show", larger, "--architecture", model)
    assert code == 2 and "position_embedding" in err[-1]
