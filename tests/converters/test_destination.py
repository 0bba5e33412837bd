"""Where conversions go when they are killed, or others come before them."""

import fcntl
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import tiny_checkpoint
from paths import SUPPORT
from saved_model import saved

from siglip_jax.converters import convert

KILLED = """
import os, signal, sys
from siglip_jax.converters import convert
def kill(done, total):
    if done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)
convert(sys.argv[1], sys.argv[2], to=sys.argv[3], force=True, progress=kill)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model") / "m")


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(("to", "target"), [("npz", "x.npz"), ("timm", "x"), ("tensorstore", "x")])
def test_what_a_killed_conversion_left_is_removed_by_the_next(model, tmp_path, to, target):
    tower = "image" if to == "timm" else None
    script = KILLED.replace("to=sys.argv[3]", f"to=sys.argv[3], tower={tower!r}")
    convert(model, tmp_path / target, to=to, tower=tower)
    there = names(tmp_path)
    for _ in range(2):
        argv = [sys.executable, "-c", script, model, tmp_path / target, to]
        done = subprocess.run(argv, env={"PYTHONPATH": str(SUPPORT), "JAX_PLATFORMS": "cpu"})
        assert done.returncode == -9
    assert set(names(tmp_path)) > set(there)
    # Another one, in the same folder.
    convert(model, tmp_path / "y.npz", to="npz")
    assert names(tmp_path) == sorted([*there, "y.npz", "y.npz.conversion.json"])


def test_one_that_is_under_way_is_left_alone(model, tmp_path):
    work = tmp_path / ".other.ab12.conversion"
    work.mkdir()
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        convert(model, tmp_path / "x.npz", to="npz")
        assert work.is_dir()
    convert(model, tmp_path / "z.npz", to="npz")
    assert not work.exists()


@pytest.mark.parametrize(("to", "target"), [("npz", "x.npz"), ("siglip_jax", "x")])
def test_a_target_that_appears_meanwhile_is_not_overwritten(model, tmp_path, to, target):
    path = tmp_path / target

    def appear(done, total):
        path.write_text("mine")

    with pytest.raises(ValueError, match=rf"{target} has appeared meanwhile; choose another name"):
        convert(model, path, to=to, progress=appear)
    assert path.read_text() == "mine" and names(tmp_path) == [target]
    convert(model, path, to=to, progress=appear, force=True)
    assert path.is_dir() or len(path.read_bytes()) > 4


def test_the_name_is_never_empty_while_it_changes_hands(model, tmp_path, monkeypatch):
    """Whatever step a process is killed at."""
    from siglip_jax.converters import destination

    convert(model, tmp_path / "x", to="siglip_jax")
    seen = []
    real = destination.exchange

    def watched(a, b):
        before = b.exists()
        real(a, b)
        seen.append((before, b.exists(), a.exists()))

    monkeypatch.setattr(destination, "exchange", watched)
    convert(model, tmp_path / "x", to="siglip_jax", force=True)
    assert seen == [(True, True, True)] and names(tmp_path) == ["x"]


def test_what_fails_on_the_way_is_undone(model, tmp_path, monkeypatch):
    from siglip_jax.converters import destination

    convert(model, tmp_path / "x.npz", to="npz")
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    flat = tiny_checkpoint.tensors(seed=9)
    np.savez(tmp_path / "other.npz", **{f"params/{name}": a for name, a in flat.items()})
    real, calls = destination.exchange, []

    def fails(a, b):
        calls.append(b.name)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real(a, b)

    monkeypatch.setattr(destination, "exchange", fails)
    with pytest.raises(OSError, match="Input/output error"):
        convert(model, tmp_path / "x.npz", to="npz", dtype="float16", force=True)
    assert calls == ["x.npz", "x.npz.conversion.json", "x.npz"]
    (tmp_path / "other.npz").unlink()
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("to", ["npz", "siglip_jax", "tensorstore", "transformers"])
def test_killed_at_any_point_the_next_gives_what_one_alone_does(model, tmp_path, to):
    """Twenty times, at ever later steps, where there was nothing and where there was a result."""
    script = SUPPORT / "killed_conversions.py"
    done = subprocess.run(
        [sys.executable, script, model, tmp_path, to, "20"],
        env={"PYTHONPATH": str(SUPPORT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) == 20
    assert {kill["died"] for kill in kills} == {-signal.SIGKILL}
    outcomes = {(kill["ended"], kill["same"], tuple(kill["hidden"])) for kill in kills}
    assert outcomes == {(0, True, ())}
    # Some were killed in the midst of it.
    assert any(name.startswith(".") for kill in kills for name in kill["left"])
