"""`make gpu REHEARSE=1`: every part of benchmarks/gpu runs here, tiny and on the CPU."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
from paths import REPO

GPU = REPO / "benchmarks" / "gpu"
# What a part may say that it goes without here, and nothing else.
MAY_BE_MISSING = ("is not installed", "needs libtpu", "needs a GPU", "PyTorch has no TPU")


def declared():
    spec = importlib.util.spec_from_file_location("declared", GPU / "declared.py")
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up.
    sys.modules["declared"] = module
    spec.loader.exec_module(module)
    return [part.name for part in module.PARTS]


def rehearsed(out, *options):
    command = [sys.executable, str(GPU), str(out), "--rehearse", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    (file,) = out.glob("*.json")
    (table,) = out.glob("*.md")
    found = json.loads(file.read_text())
    assert table.read_text().strip() in done.stdout
    return done, found


def test_every_part_reports(tmp_path):
    done, found = rehearsed(tmp_path)
    rows = found["rows"]
    wrong = [row for row in rows if row["kind"] == "failed" or not row.get("ok", True)]
    assert (done.returncode, wrong) == (0, []), done.stdout + done.stderr
    for part in declared():
        mine = [row for row in rows if row["part"] == part]
        found_something = [
            row for row in mine if row["kind"] in ("check", "measured") and row["what"] != "device"
        ]
        skipped = [row for row in mine if row["kind"] == "skipped"]
        assert found_something or skipped, part
        for row in skipped:
            assert any(reason in row["reason"] for reason in MAY_BE_MISSING), row
    checked = {row["part"] for row in rows if row["kind"] == "check"}
    assert checked >= {"models", "lowered", "loss", "resume", "suite", "job"}
    timed = {row["part"] for row in rows if "per_second" in row}
    assert timed >= {"towers", "beside", "choices", "training", "flags", "transfer", "job"}
    # Few and small enough to be sent back.
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) <= 8 and max(file.stat().st_size for file in files) < 16e6


def test_parts_that_die_or_hang_end_no_other(tmp_path):
    """As a TPU's: one after the other, each in a process of its own."""
    broken = tmp_path / "gpu"
    broken.mkdir()
    for file in GPU.glob("*.py"):
        (broken / file.name).write_text(file.read_text())
    parts = broken / "parts"
    parts.mkdir()
    (parts / "models.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    (parts / "loss.py").write_text("def run(results):\n    results.check('one', 2.0, 1.0)\n")
    (parts / "suite.py").write_text(
        "import time\ndef run(results):\n    results.check('two', 1.0, 1.0)\n    time.sleep(999)\n"
    )
    (parts / "resume.py").write_text("def run(results):\n    raise ValueError('no such thing')\n")
    # Without site-packages: the process that starts parts needs nothing but Python.
    command = [sys.executable, "-S", str(tmp_path / "benchmarks" / "gpu"), str(tmp_path / "out")]
    command += ["--rehearse", "--tpu", "--minutes", "0.4"]
    command += ["--only", "models", "loss", "suite", "resume", "topology"]
    # The checkout is found from where the script lies.
    (tmp_path / "siglip_jax").symlink_to(REPO / "siglip_jax")
    (tmp_path / "converters").symlink_to(REPO / "converters")
    (tmp_path / "pyproject.toml").symlink_to(REPO / "pyproject.toml")
    moved = tmp_path / "benchmarks"
    moved.mkdir()
    broken.rename(moved / "gpu")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    *_, passed, models, loss, resume, suite = done.stdout.splitlines()
    assert passed == "1 of 2 checks passed; 4 rows failed."
    assert models == "- models: models: its process ended with code -9"
    assert loss == "- loss: one: 2, at most 1"
    assert resume == "- resume: resume: ValueError: no such thing"
    assert re.fullmatch(r"- suite: suite: ended after \d+ s, its budget", suite)
    assert "- topology: topology: no time left" in done.stdout


def test_what_has_to_be_carried_is_counted():
    done = subprocess.run(
        [sys.executable, str(GPU / "carry.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 64 MB" in done.stdout
    assert 'python3 benchmarks/gpu "$OUT"' in done.stdout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["out", "--rehearse", "--only", "tower"], "invalid choice: 'tower'"),
        ([], "the following arguments are required: out"),
        (["out"], "nvidia-smi finds no card; --rehearse runs every part on a CPU"),
    ],
)
def test_bad_arguments(given, message, tmp_path):
    done = subprocess.run(
        [sys.executable, str(GPU), *given],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PATH": ""},
    )
    assert done.returncode == 2 and message in done.stderr
    assert not list(tmp_path.iterdir())
