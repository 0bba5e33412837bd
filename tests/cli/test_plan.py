"""`siglip-jax plan`."""

import json

import jax
import pytest

from siglip_jax.plan import Slice
from siglip_jax.plan.chips import CHIPS
from siglip_jax.programs import load_program

# pytest looks for fixtures among the names of a module.
pytestmark = pytest.mark.usefixtures("surroundings")


def test_the_programs_of_scoring(cli, model):
    code, out, err = cli("plan", model, "--on", "local", "--batch-size", 32, "--label-count", 40)
    assert (code, err) == (0, [])
    first, head, *lines = out.splitlines()
    assert first.startswith(f"{model} on local: 8 x cpu, jax ")
    assert head.split() == ["a", "chip", "images", "texts", "logits"]
    rows = {line[:24].strip(): line[24:].split() for line in lines}
    assert rows["batch"] == ["4", "4", "4"]
    assert len(rows["GFLOP, XLA"]) == 3
    # A CPU has no published peak: nothing is said of time.
    assert "items/s" not in out and "largest batch" not in out
    gather = "1 x all-gather of f32[32,24], 0.0 MB each, in 1 group(s) of 8 chips"
    assert f"texts: {gather}" in lines, out


def test_json_and_a_saved_program(cli, model, tmp_path):
    code, out, err = cli(
        *(
            "plan",
            model,
            "--on",
            "local",
            "--task",
            "images",
            "--batch-size",
            16,
            "--scan",
            "--json",
        ),
        *("--dtype", "float32", "--save", tmp_path / "p.zip"),
    )
    assert (code, err) == (0, [])
    got = json.loads(out)
    (images,) = got["programs"]
    assert (got["chips"], images["task"], images["batch"], images["loops"]) == (8, "images", 16, 1)
    assert images["flops"] > images["flops_once"]
    saved = load_program(tmp_path / "p.zip")
    assert saved.batches == {"images": 16} and saved.execution.scan_image


def small(monkeypatch, nbytes):
    """The local devices, with so much memory."""
    chip = next(chip for chip in CHIPS if chip.name == "v5e")
    chip = type(chip)(**vars(chip) | {"memory": nbytes})
    monkeypatch.setattr("siglip_jax.plan.find_slice", lambda name: Slice(name, jax.devices(), chip))


def test_what_does_not_fit_is_an_error_with_the_largest_that_does(cli, model, monkeypatch):
    common = ("plan", model, "--on", "v5e:2x4", "--task", "images", "--json", "--batch-size")
    small(monkeypatch, 1e12)
    monkeypatch.setattr("siglip_jax.plan.estimate.largest_batch", lambda *args: 7)
    monkeypatch.setattr("siglip_jax.plan.largest_batch", lambda *args: 7)
    _, out, _ = cli(*common, 8)
    plan = json.loads(out)["programs"][0]
    assert plan["largest"] == 7 and plan["rate"] > 0

    small(monkeypatch, 1.5 * plan["total"])
    code, out, err = cli(*common, 64)
    assert code == 2
    assert json.loads(out)["programs"][0]["largest"] == 7
    assert err[0].startswith("siglip-jax: warning: images, 8 a chip, does not fit into the memory")

    small(monkeypatch, 1.01 * plan["total"])
    code, _, err = cli(*common, 8, "--no-search")
    assert code == 0
    assert "one copy of the weights takes" in err[0] and "--fsdp splits them" in err[0]


def test_a_recipe(cli, tmp_path):
    pytest.importorskip("optax")
    (tmp_path / "r.toml").write_text(
        'steps = 4\nbatch = 16\n[data]\ntrain = "x"\n[model]\nvocabulary = "v"\n'
        "image = { width = 48, depth = 2, mlp_dim = 96, num_heads = 4, patch = 8, res = 32 }\n"
        "[model.text]\nwidth = 48\ndepth = 2\nmlp_dim = 96\nnum_heads = 4\n"
        "vocab_size = 50\nlength = 8\n"
    )
    code, out, err = cli("plan", "--train", "r.toml", "--on", "local", "--json", "--scan", "--fsdp")
    assert (code, err) == (0, [])
    (step,) = json.loads(out)["programs"]
    assert (step["task"], step["batch"]) == ("train", 16)
    assert step["loops"] >= 4  # two towers, there and back
    assert {"all-reduce", "collective-permute"} <= {c["kind"] for c in step["collectives"]}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("siglip_b16_224", "--on", "v5e:4x5"), "did you mean v5e:4x8, v5e:4x4"),
        (("siglip_b16_225", "--on", "local"), "did you mean siglip_b16_224"),
        (("--on", "local"), "give either a MODEL or --train RECIPE"),
        (("siglip_b16_224", "--train", "r.toml", "--on", "local"), "give either a MODEL or"),
        (("siglip_b16_224", "--on", "local", "--patches", "9"), "--patches is for NaFlex"),
        (("siglip_b16_224",), "required: --on"),
        (("siglip2_b16_naflex", "--on", "local", "--res", "9"), "no fixed resolution"),
        (("--train", "r.toml", "--on", "local", "--save", "x"), "--save is for scoring"),
        (("--train", "none.toml", "--on", "local"), "none.toml"),
    ],
)
def test_bad_input_is_one_line(cli, argv, message):
    code, out, err = cli("plan", *argv)
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]


def test_a_batch_that_the_chips_do_not_divide(cli, model):
    code, _, err = cli("plan", model, "--on", "local", "--task", "texts", "--batch-size", 9)
    assert code == 2
    assert "a batch of 9 does not divide over 8 chips; the next that does is 16" in err[0]


def test_without_libtpu(cli, model, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "libtpu" else find(name, *a)
    )
    code, _, err = cli("plan", model, "--on", "v6e:2x4")
    assert code == 2 and 'pip install "jax[tpu]"' in err[0]
