"""PEFT adapters in every command that reads a model: `--base` says what they are merged into."""

import json

import numpy as np
import pytest
from adapter_folders import adapter_folder, factors

from siglip_jax.cli.main import COMMANDS, make_parser
from siglip_jax.model_files import open_model

KERNEL = "vision_model.encoder.layers.0.self_attn.q_proj"
BASE = ("--base", "siglip_emoji")
pytestmark = pytest.mark.usefixtures("surroundings")
WITHOUT_MODEL = {"check", "demo", "list", "fetch", "train"}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """An adapter of the bundled model."""
    with open_model("siglip_emoji") as opened:
        width = opened.config.image_tower.size.width
    a, b = factors(width, width)
    items = {f"base_model.model.{KERNEL}.lora_{name}.weight": w for name, w in (("A", a), ("B", b))}
    return adapter_folder(tmp_path_factory.mktemp("adapter") / "tuned", tensors=items)


@pytest.mark.parametrize("command", [c.NAME for c in COMMANDS if c.NAME not in WITHOUT_MODEL])
def test_every_command_that_reads_a_model_has_the_same_options_of_it(command):
    (subparsers,) = (a for a in make_parser()._actions if a.dest == "command")
    options = set(subparsers.choices[command]._option_string_actions)
    assert {"--base", "--architecture", "--tower"} <= options


def test_headers_and_weights(cli, tuned):
    code, out, _ = cli("show", tuned, *BASE)
    assert code == 0 and "LoRA adapter of rank 2" in out
    code, out, _ = cli("convert", tuned, "whole", "--to", "siglip_jax", *BASE)
    assert code == 0 and "tuned, 1 weights" in out
    code, out, _ = cli("diff", tuned, "whole", *BASE)
    assert code == 0 and "identical" in out
    code, out, _ = cli("diff", "siglip_emoji", tuned, *BASE, "--json")
    differ = [t["name"] for t in json.loads(out)["tensors"] if not t["identical"]]
    assert code == 1 and len(differ) == 1 and "query/kernel" in differ[0]


@pytest.mark.filterwarnings("ignore:.*LoRA adapter")
def test_running_it(cli, tuned, pictures):
    assert cli("convert", tuned, "whole", "--to", "siglip_jax", *BASE)[0] == 0
    z = []
    for name, model in (("a.npz", ("--model", tuned, *BASE)), ("b.npz", ("--model", "whole"))):
        assert cli("embed", pictures, *model, "--out", name)[0] == 0
        z.append(np.load(name)["zimg"])
    np.testing.assert_array_equal(*z)
    code, out, _ = cli("verify", tuned, *BASE)
    assert code == 0 and "WRONG" not in out
    code, out, _ = cli("doctor", "--model", tuned, *BASE, "--lower", "none", "--json")
    assert code == 0 and json.loads(out)["model"] == "siglip_emoji with tuned"


def test_shapes_alone(cli, tuned):
    plan = ("plan", tuned, *BASE, "--on", "local", "--batch-size", 8, "--task", "images")
    code, out, _ = cli(*plan, "--no-search", "--json")
    assert code == 0 and json.loads(out)["programs"][0]["weights"] > 0
    # Which it does not change: the text tower is the base's.
    bench = ("bench", "--model", tuned, *BASE, "--batch-size", 8, "--tower", "text")
    code, out, _ = cli(*bench, "--seconds", 0, "--json")
    assert code == 0 and [t["tower"] for t in json.loads(out)["towers"]] == ["texts"]


@pytest.mark.parametrize("command", ["show", "verify", "plan", "bench", "doctor", "convert"])
def test_without_its_base_each_asks_for_it(cli, tuned, command):
    given = {
        "plan": (tuned, "--on", "local"),
        "bench": ("--model", tuned),
        "doctor": ("--model", tuned),
        "convert": (tuned, "x", "--to", "npz"),
    }.get(command, (tuned,))
    code, out, err = cli(command, *given)
    assert (code, out) == (2, "")
    assert err[-1].endswith(
        "is no model but a PEFT adapter (LORA) of google/siglip-base-patch16-224; give the model "
        "that it is of as --base"
    )


@pytest.mark.parametrize("name", ["siglip_emoji", "siglip_b16_224"])
def test_a_base_of_what_is_no_adapter(cli, name):
    """A released model is not downloaded to find that out."""
    code, _, err = cli("show", name, *BASE)
    assert code == 2
    assert err[-1].endswith(f"{name} is no PEFT adapter, so that it has no base; leave out --base")
    code, _, err = cli("diff", "siglip_emoji", "siglip_emoji", *BASE)
    assert code == 2 and err[-1].endswith("--base is of a PEFT adapter; neither A nor B is one")
