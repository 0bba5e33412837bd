"""`siglip-jax plan --items` and the days of a recipe."""

import json

import jax
import pytest

from siglip_jax.plan import CHIPS, Slice
from siglip_jax.plan.measured import DECODING

pytestmark = pytest.mark.usefixtures("surroundings")
V4 = next(chip for chip in CHIPS if chip.name == "v4")
RECIPE = """
steps = 86_400
batch = 16
data = {train = "x"}
execution = {remat = "nothing_saveable"}
[model]
vocabulary = "v"
image = { width = 48, depth = 2, mlp_dim = 96, num_heads = 4, patch = 8, res = 32 }
text = { width = 48, depth = 2, mlp_dim = 96, num_heads = 4, vocab_size = 50, length = 8 }
"""


@pytest.fixture
def as_v4(monkeypatch):
    """The local devices, taken for eight v4."""
    monkeypatch.setattr("siglip_jax.plan.find_slice", lambda name: Slice(name, jax.devices(), V4))


def test_a_job_on_gpus_needs_no_compiler(cli):
    code, out, err = cli("plan", "siglip_b16_224", "--on", "H200", "--items", "1e6", "--json")
    assert (code, err) == (0, [])
    plan = json.loads(out)
    assert (plan["items"], plan["chip"], plan["chips"], plan["shards"]) == (10**6, "H200", 1, 489)
    assert plan["bound"] == "decoding in the processes"
    assert plan["hours"] == pytest.approx(1e6 / DECODING.process / 3600)
    # What was measured there.
    assert plan["device"] == pytest.approx(10_415, rel=0.01)
    assert any("no TPU has been measured" in line for line in plan["assumptions"])


def test_a_job_on_a_slice_is_of_the_compiled_tower(cli, model, as_v4):
    common = ("plan", model, "--on", "v4:2x2x2", "--items", 5e9, "--batch-size", 32)
    code, out, err = cli(*common, "--json")
    assert (code, err) == (0, [])
    plan = json.loads(out)
    assert (plan["chips"], plan["hosts"], plan["items"]) == (8, 2, 5 * 10**9)
    assert plan["network"] is None
    assert plan["written"] > 5e9 * 4 * 24  # the width of its embeddings
    code, out, _ = cli(*common, "--processes", 4, "--decode-rate", 2 * 848, "--image-bytes", 1e5)
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == f"{model} on v4:2x2x2: 5,000,000,000 images, 8 x v4 in 2 hosts of 120 cores"
    rows = dict(line.rsplit("  ", 1) for line in lines[1:] if not line.startswith("assumed"))
    rows = {name.strip(): value for name, value in rows.items()}
    assert rows["decoding, 4 processes a host"] == f"{2 * 4 * 2 * DECODING.process:,.0f} images/s"
    assert rows["read"] == "500.00 TB"
    assert sum(line.startswith("assumed: ") for line in lines) == 5


def test_the_days_of_a_recipe(cli, tmp_path, as_v4, monkeypatch):
    pytest.importorskip("optax", reason="training needs: pip install '.[train]'")
    (tmp_path / "r.toml").write_text(RECIPE)
    common = ("plan", "--train", "r.toml", "--on", "v4:2x2x2", "--no-search")
    code, out, err = cli(*common, "--json")
    assert (code, err) == (0, [])
    got = json.loads(out)
    run, (step,) = got["run"], got["programs"]
    assert run["published"] is None and run["examples"] == 16 * 86_400
    assert run["compute"] == pytest.approx(step["compute_seconds"])
    assert run["compute"] < run["measured"]
    assert any("remat=nothing_saveable" in line for line in run["assumptions"])

    from siglip_jax.plan import published

    (known,) = published.RUNS
    made_up = {"image": (48, 2), "patch": 8, "text": (48, 2), "locked": False}
    made_up |= {"batch": 16, "steps": 86_400, "chips": 8}
    monkeypatch.setattr(published, "RUNS", (type(known)(**vars(known) | made_up),))
    code, out, _ = cli(*common)
    lines = [line.strip() for line in out.splitlines()]
    assert f"the run: 86,400 steps, {16 * 86_400:,} examples" in lines
    assert any(line.startswith("published, on 8 chips of v4") for line in lines)
    assert any(line.startswith("published: that is more than ") for line in lines)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("siglip_b16_224", "--on", "H100", "--items", "0"), "a whole number from 1 to 1e15"),
        (("siglip_b16_224", "--on", "H100", "--items", "many"), "such as 5e9, got 'many'"),
        (("siglip_b16_224", "--on", "H100", "--items", "1.5"), "a whole number from 1"),
        (("siglip_b16_224", "--on", "H100", "--items", "nan"), "a whole number from 1"),
        (("siglip_b16_224", "--on", "H100", "--image-bytes", "9"), "bulk job; give --items N"),
        (("siglip_b16_224", "--on", "H100", "--items", "9", "--image-bytes", "-1"), "above 0"),
        (("siglip_b16_224", "--on", "H100", "--items", "9", "--decode-rate", "inf"), "above 0"),
        (("siglip_b16_224", "--on", "H100", "--items", "9", "--processes", "0"), "at least 1"),
        (("siglip_b16_224", "--on", "H100"), "H100 is a GPU, for which nothing is compiled"),
        (("siglip_b16_224", "--on", "H1000", "--items", "9"), "called 'H1000'; did you mean H100"),
        (("siglip_b16_224", "--on", "H100:0", "--items", "9"), "no topology is called 'H100:0'"),
        (("siglip_b16_224", "--on", "H100", "--items", "9", "--task", "texts"), "--task texts"),
        (("siglip_b16_224", "--on", "H100", "--items", "9", "--save", "x"), "leave out --items"),
        (("siglip_b16_224", "--on", "local", "--items", "9"), "nothing is published of the"),
        (("--train", "r.toml", "--on", "H100", "--items", "9"), "a recipe says its own steps"),
        (("siglip_b16_225", "--on", "H100", "--items", "9"), "did you mean siglip_b16_224"),
    ],
)
def test_bad_input_is_one_line(cli, argv, message):
    code, out, err = cli("plan", *argv)
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]
