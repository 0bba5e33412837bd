"""Replicas under Ray Serve, on a local Ray; `make check-engines` installs it."""

import json
import os
import socket
import subprocess
import sys

import pytest
from emoji_pictures import PICTURES
from paths import SUPPORT

pytest.importorskip("ray.serve", reason="needs Ray Serve: make check-engines")
pytestmark = pytest.mark.slow


def test_two_replicas_of_which_one_is_killed(scorer, tmp_path):
    picture = PICTURES[5]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "found.json"
    kept = tmp_path / "compiled"
    kept.mkdir(mode=0o700)
    surroundings = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(kept),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "XLA_FLAGS": "",
    }
    done = subprocess.run(
        [sys.executable, SUPPORT / "ray_replicas.py", picture, str(port), out],
        env=surroundings, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    expected = float(scorer.score([picture], ["a brown circle"]).logits[0, 0])
    assert found["before"] == 2
    for status, logit in found["answers"] + found["after"]:
        assert status == 200
        assert logit == pytest.approx(expected, abs=1e-5)
    assert found["now"] == 2, "Ray has not replaced the replica that died"
