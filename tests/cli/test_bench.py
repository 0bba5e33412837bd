"""`siglip-jax bench`, on the eight devices that the tests see."""

import json

import pytest

from siglip_jax.checkpoints import find
from siglip_jax.cli.commands import bench
from siglip_jax.converters import convert

# pytest looks for fixtures among the names of a module.
pytestmark = pytest.mark.usefixtures("surroundings")
QUICK = ("--seconds", "0")


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    monkeypatch.setattr("siglip_jax.bench.peak.SIDES", {"cpu": (16, 32)})


def test_json_has_all_that_was_measured(cli, model):
    code, out, err = cli("bench", "--model", model, "--batch-size", "8", "16", "--json", *QUICK)
    assert (code, err) == (0, [])
    facts = json.loads(out)
    assert (facts["devices"], facts["execution"]["dtype"]) == (8, "float32")
    assert (facts["execution"]["attention"], facts["attention"]) == ("auto", "matmul")
    assert [(t["tower"], t["batch"]) for t in facts["towers"]] == [
        ("images", 8),
        ("images", 16),
        ("texts", 8),
        ("texts", 16),
    ]
    for tower in facts["towers"]:
        assert len(tower["latencies"]) >= 3
        assert 0 < tower["p50"] <= tower["p95"] <= max(tower["latencies"])
        rate = tower["items_per_second"] * tower["flops"]
        assert tower["share_of_peak"] == pytest.approx(rate / facts["matrix_peak"])
        assert tower["temporary"] > 0 and tower["compile_seconds"] > 0
    assert facts["memory_peak"] > facts["weight_bytes"] > 0 and facts["memory"] is None


def test_table_of_one_tower(cli, model):
    code, out, err = cli(
        "bench", "--model", model, "--batch-size", "8", "--tower", "text", "--scan", *QUICK
    )
    assert (code, err) == (0, [])
    lines = out.splitlines()
    assert lines[0].startswith(f"{model} in float32 on 8 x cpu, jax ")
    assert lines[1] == "attention: matmul, chosen for this device"
    assert lines[3].split()[:3] == ["TOWER", "BATCH", "PER"]
    assert lines[4].split()[:2] == ["texts", "8"]
    assert [line.split()[0] for line in lines[4:]] == ["texts", "memory:"]


def test_an_attention_that_was_asked_for(cli, model):
    options = ("--batch-size", "8", "--tower", "text", "--attention", "xla", *QUICK)
    code, out, _ = cli("bench", "--model", model, *options)
    assert (code, out.splitlines()[1]) == (0, "attention: xla")


def test_a_name_is_enough(cli, monkeypatch):
    seen = []

    def stop(name, *_, **unused):
        seen.append(find(name).config)
        raise ValueError("far enough")

    monkeypatch.setattr(bench, "architecture_of", stop)
    assert cli("bench")[0] == 2
    assert seen[0].vision.res == 224


def test_weights_that_do_not_say_all_of_themselves(cli, model, tmp_path):
    convert(model, tmp_path / "bare.npz", to="npz")
    convert(model, tmp_path / "hf", to="transformers")
    (tmp_path / "hf" / "model.safetensors").rename(tmp_path / "alone.safetensors")
    like = ["--architecture", model]
    for name, options in (("bare.npz", ["--res", 32]), ("alone.safetensors", like)):
        code, out, err = cli(
            "bench", "--model", name, "--batch-size", 8, "--json", *options, *QUICK
        )
        assert (code, err) == (0, [])
        assert [tower["tower"] for tower in json.loads(out)["towers"]] == ["images", "texts"]
    assert "give --res 32" in cli("bench", "--model", "bare.npz")[2][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch-size", "3"), "--batch-size 3 cannot be split over 8 devices; try 8"),
        (("--batch-size", "0"), "expected a whole number of at least 1, got '0'"),
        (("--seconds", "-1"), "expected a number of seconds, got '-1'"),
        (("--model", "siglip_b16_24"), "did you mean siglip_b16_224"),
    ],
)
def test_bad_input(cli, model, arguments, message):
    given = arguments if "--model" in arguments else ("--model", model, *arguments)
    try:
        code, out, err = cli("bench", *given)
    except SystemExit as stop:  # argparse
        code = stop.code
    else:
        assert out == "" and len(err) == 1 and message in err[0]
    assert code == 2
