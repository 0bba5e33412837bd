"""`siglip-jax train`: what it prints, its exit codes, and being killed."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import shapes
from command_line import shell

from siglip_jax import training
from siglip_jax.training import Diverged, TrainingProgress, TrainingResult

pytestmark = pytest.mark.usefixtures("compiled_once", "surroundings")
STEPS = 60


@pytest.fixture
def recipe(tmp_path, data):
    table = shapes.recipe(
        data, steps=STEPS, optimizer={"lr": 3e-3, "warmup": 4}, save={"every": 10}
    )
    (tmp_path / "shapes.toml").write_text(shapes.toml(table))
    return tmp_path / "shapes.toml"


def started(recipe, out):
    """The command in a process of its own, on one device; its programs are shared."""
    return subprocess.Popen(
        [sys.executable, "-m", "siglip_jax.cli.main", "train", str(recipe), "--out", str(out)],
        env=os.environ
        | {
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
            "JAX_COMPILATION_CACHE_DIR": shapes.scratch(),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err.splitlines()


def until(process, there):
    """Returns once `there()` is true, or fails when the process has ended."""
    while not there():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def steps_of(out):
    path = out / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_killed_and_told_to_stop_it_ends_as_if_nothing_had_been(tmp_path, recipe):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code, out, _ = finished(started(recipe, whole))
    assert code == 0 and out == f"{STEPS} steps; the model is {whole / 'model'}\n"

    # Killed while it writes a checkpoint, if this is quick enough; else between two.
    process = started(recipe, cut)
    until(process, lambda: steps_of(cut) >= 5 and any(cut.glob("checkpoints/*-tmp")))
    process.kill()
    assert finished(process)[0] == -signal.SIGKILL

    # Told to stop, once it has gone on: the journal is then another file.
    before = (cut / "metrics.jsonl").stat().st_ino
    process = started(recipe, cut)
    until(process, lambda: (cut / "metrics.jsonl").stat().st_ino != before and steps_of(cut) >= 11)
    process.send_signal(signal.SIGINT)
    code, out, err = finished(process)
    assert (code, out) == (130, ""), err
    done = int(re.fullmatch(r"siglip-jax: stopped after step (\d+) and saved; .*", err[-1])[1])
    assert (cut / f"checkpoints/{done}").is_dir() and steps_of(cut) == done < STEPS

    code, out, _ = finished(started(recipe, cut))
    assert code == 0 and out == f"{STEPS} steps; the model is {cut / 'model'}\n"
    assert shapes.journal(cut) == shapes.journal(whole)
    weights = "model/weights.safetensors"
    assert (cut / weights).read_bytes() == (whole / weights).read_bytes()
    # Nothing is left of what the killed one had begun to write.
    assert all(entry.name.isdigit() for entry in (cut / "checkpoints").iterdir())


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_it_ends_as_if_nothing_had_been(tmp_path, recipe, kills):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert finished(started(recipe, whole))[0] == 0
    rng, deaths = random.Random(kills), 0
    for kill in range(kills):
        process = started(recipe, cut)
        # Ever further, so that each gets somewhere; some die before their first step.
        goal = rng.randint(0, 1 + kill * STEPS // (kills + 1))
        until(process, lambda goal=goal: steps_of(cut) >= goal)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        deaths += finished(process)[0] == -signal.SIGKILL
    assert deaths == kills
    assert finished(started(recipe, cut))[0] == 0
    assert shapes.journal(cut) == shapes.journal(whole)
    weights = "model/weights.safetensors"
    assert (cut / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.fixture
def pretended(monkeypatch):
    """`train` that reports a few things and ends as told; the arguments of its calls."""
    calls = []

    def pretend(outcome):
        def fake(recipe, out, *, mesh, report):
            calls.append((recipe, out, dict(mesh.shape)))
            numbers = {"loss": 1.23456789, "grad_norm": 7.0, "lr": 0.1}
            for step in (1, 2, 16):
                report(TrainingProgress("training", step, 16, numbers))
            report(TrainingProgress("evaluating", 16, 16, {}))
            report(TrainingProgress("evaluated", 16, 16, outcome.metrics))
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(training, "train", fake)
        return calls

    return pretend


METRICS = {"img2txt_recall@1": 0.5, "txt2img_recall@5": 1.0}


def test_what_it_prints(recipe, cli, pretended, tmp_path):
    calls = pretended(TrainingResult(16, True, None, tmp_path / "model", METRICS))
    code, out, err = cli("train", recipe, "--out", "run", "--set", "steps=20")
    assert code == 0
    assert out.splitlines() == [
        f"16 steps; the model is {tmp_path / 'model'}",
        "img2txt_recall@1        50.00%",
        "txt2img_recall@5       100.00%",
    ]
    # Not a terminal: each evaluation, and steps every 30 seconds.
    assert err == ["siglip-jax: step 16: img2txt_recall@1 0.5"]
    ((taken, folder, mesh),) = calls
    assert (taken.steps, folder, mesh) == (20, "run", {"data": 8, "model": 1})

    code, out, err = cli("train", recipe, "--out", "run", "--json")
    assert (code, err) == (0, []) and json.loads(out) == {
        "step": 16,
        "finished": True,
        "metrics": METRICS,
        "model": str(tmp_path / "model"),
    }


def test_what_it_prints_when_it_was_stopped(recipe, cli, pretended):
    pretended(TrainingResult(9, False, None, None, {}))
    code, out, err = cli("train", recipe, "--out", "run", "--json")
    assert code == 143
    assert json.loads(out) == {"step": 9, "finished": False, "metrics": {}, "model": ""}
    assert err[-1] == "siglip-jax: stopped after step 9 and saved; the same command goes on"


@pytest.mark.parametrize("error", [Diverged("step 2: it is nan"), OSError("the disk is full")])
def test_what_it_prints_when_it_failed(recipe, cli, pretended, error):
    error.metrics = {}
    pretended(error)
    code, out, err = cli("train", recipe, "--out", "run")
    assert (code, out) == (2, "")
    assert err == ["siglip-jax: step 16: ", f"siglip-jax: error: {error}"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--set", "optimiser.lr=1"], "optimiser is unknown; did you mean optimizer?"),
        (["--set", "batch=20"], "does not divide into accumulate=1 parts over 8 devices"),
        (["--set", "model.text.width=31"], "width 31 is not a multiple of num_heads 2"),
        (["--set", "data.train=x.tar"], "x.tar: no such file"),
        (["--st", "x"], "there is no option --st; did you mean --set?"),
    ],
)
def test_one_line_for_what_is_wrong(recipe, cli, argv, message, tmp_path):
    code, out, err = cli("train", recipe, "--out", "run", *argv)
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith("siglip-jax") and message in err[0]
    assert not (tmp_path / "run").exists()


def test_no_recipe_and_no_folder(cli):
    code, out, err = cli("train", "x.toml", "--out", "run")
    assert (code, out) == (2, "")
    assert err == [
        "siglip-jax: error: x.toml: the recipe cannot be read: No such file or directory"
    ]
    code, _, err = cli("train", "x.toml")
    assert code == 2 and "--out" in err[0]


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from siglip_jax.cli.main import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not (found := set(sys.argv[1].split()) & set(sys.modules)), found\n"
    )
    shell("-c", code, "jax numpy rich optax orbax grain tomllib")
