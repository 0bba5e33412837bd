"""Training that is killed and goes on, against the same run left alone.

On a GPU sums of gradients depend on the order in which threads add, unless XLA is told to keep to
one; Adam makes steps of the same size of rounding as of gradients, so that two runs differ soon
where a gradient is nothing but rounding (the bias of keys). With one order both runs are equal.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from parts import tests_folder
from results import Results

from siglip_jax.training.journal import read_journal
from siglip_jax.weights.tree import flatten

tests_folder.importable()
import shapes  # noqa: E402
from tolerances import TRAINED_RELATIVE  # noqa: E402

ONE_ORDER = "--xla_gpu_deterministic_ops=true"


def run(results: Results) -> None:
    scale = results.scale
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table = shapes.recipe(
            folder,
            steps=scale.steps,
            save={"every": scale.every},
            optimizer={"lr": 3e-3, "warmup": 4},
        )
        (folder / "recipe.toml").write_text(shapes.toml(table))
        start = time.perf_counter()
        whole, cut = (train(folder, name) for name in ("whole", "cut"))
        killed_at = kill(cut, folder / "cut", scale.killed, results)
        code = train(folder, "cut").wait(max(1, results.left()))
        results.check("the killed run ends after going on", code, 0)
        results.check("the other run ends", whole.wait(max(1, results.left())), 0)
        seconds = time.perf_counter() - start
        results.measured("200 steps" if scale.steps == 200 else "steps", seconds=seconds,
                         steps=scale.steps, killed_at=killed_at)  # fmt: skip
        compare(results, folder)


def train(folder: Path, name: str) -> subprocess.Popen[bytes]:
    # -P: not from the folder that this happens to run in.
    command = [sys.executable, "-P", "-m", "siglip_jax.cli.main", "train", folder / "recipe.toml"]
    flags = f"{os.environ.get('XLA_FLAGS', '')} {ONE_ORDER}"
    return subprocess.Popen(
        [*command, "--out", folder / name], env=os.environ | {"XLA_FLAGS": flags}
    )


def kill(process: subprocess.Popen[bytes], folder: Path, step: int, results: Results) -> int:
    """SIGKILL once `step` steps are done; how many there were then."""
    done = 0
    while done < step and process.poll() is None and results.left() > 1:
        file = folder / "metrics.jsonl"
        done = file.read_bytes().count(b"\n") if file.exists() else 0
        time.sleep(0.002)
    if process.poll() is not None:
        raise RuntimeError(f"the run ended with code {process.returncode} before step {step}")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return done


def compare(results: Results, folder: Path) -> None:
    """Losses and weights of both runs; on one device they are the same to the last bit."""
    import siglip_jax

    losses = [
        np.array([line["loss"] for line in read_journal(folder / name) if "loss" in line])
        for name in ("whole", "cut")
    ]
    results.check("steps in the journals", abs(len(losses[0]) - len(losses[1])), 0)
    weights = [flatten(siglip_jax.load(folder / name / "model").params) for name in
               ("whole", "cut")]  # fmt: skip
    off, same, farthest = 0.0, True, ""
    for name, leaf in weights[0].items():
        a, b = np.asarray(leaf), np.asarray(weights[1][name])
        same &= a.tobytes() == b.tobytes()
        apart = float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-30))
        off, farthest = max((off, farthest), (apart, name))
    both = min(map(len, losses))
    differ = np.flatnonzero(losses[0][:both] != losses[1][:both])
    results.measured(
        "both runs",
        same_bits=same,
        first_loss=float(losses[0][0]),
        last_loss=float(losses[0][-1]),
        weights_apart=off,
        farthest=farthest,
        steps_of_one_loss=int(differ[0]) if len(differ) else both,
        losses_apart=float(np.abs(losses[0][:both] / losses[1][:both] - 1).max()),
    )
    results.check("weights of both runs", off, TRAINED_RELATIVE)
    results.check("the loss falls", losses[0][-1] / losses[0][0], 1.0)
