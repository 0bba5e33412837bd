"""Two processes on this machine (`jax.distributed`) train as one does, and stop together."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import shapes
from paths import SUPPORT
from tolerances import TRAINED_RELATIVE

import siglip_jax
from siglip_jax.programs import make_mesh, sharding
from siglip_jax.weights.tree import flatten

pytestmark = pytest.mark.usefixtures("compiled_once")
WORKER = SUPPORT / "two_process_training.py"


def test_two_processes_equal_one(tmp_path, monkeypatch):
    table = shapes.recipe(
        tmp_path,
        steps=20,
        optimizer={"lr": 3e-3, "warmup": 4},
        devices={"weights": "fsdp"},
        evaluate={"data": str(tmp_path / "shapes.parquet")},
        save={"every": 100},
    )
    (tmp_path / "recipe.toml").write_text(shapes.toml(table))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": shapes.scratch(),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, WORKER, address, str(rank), tmp_path / "recipe.toml", tmp_path],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        logs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(logs)
    said = [(tmp_path / f"{rank}.txt").read_text().split() for rank in range(2)]
    assert said[0] == said[1]
    step, *rest, recall, devices = said[0]
    # Told to stop, both did, at the same step.
    assert 5 < int(step) < 20 and rest == ["False", "20", "True", "True"] and devices == "4"

    # One process with as many devices: from the beginning, and from where those two stopped.
    monkeypatch.setattr(sharding.fsdp_spec, "__defaults__", (512,))
    mesh = make_mesh(jax.devices()[:4], model=2)
    results = [shapes.trained(tmp_path, table, run=name, mesh=mesh) for name in ("alone", "told")]
    two = flatten(siglip_jax.load(tmp_path / "run/model").params)
    expected = shapes.journal(tmp_path / "run")
    assert [line["step"] for line in expected] == [*range(1, 21), 20]
    for name, result in zip(("alone", "told"), results, strict=True):
        lines = shapes.journal(tmp_path / name)
        assert [line["step"] for line in lines] == [line["step"] for line in expected]
        losses = [[line["loss"] for line in each if "loss" in line] for each in (lines, expected)]
        np.testing.assert_allclose(*losses, rtol=TRAINED_RELATIVE)
        assert float(recall) == pytest.approx(result.metrics["img2txt_recall@1"], abs=0.05)
        for key, leaf in flatten(result.params).items():
            if not key.endswith("/key/bias"):  # see test_train
                a, b = np.asarray(leaf), np.asarray(two[key])
                assert np.linalg.norm(a - b) <= TRAINED_RELATIVE * np.linalg.norm(b), key
