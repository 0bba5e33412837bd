"""Jobs by actors of Ray itself, that are killed in any way; `make check-engines` installs it."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from job_inputs import contents, picture, started
from paths import SUPPORT
from saved_model import saved

pytest.importorskip("ray", reason="needs Ray: make check-engines")
pytestmark = pytest.mark.slow
SHARDS, SIZE = 7, 3


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """Of the command, and of the nodes, which compile as it does."""
    kept = tmp_path_factory.mktemp("compiled")
    kept.chmod(0o700)
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(kept),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(SUPPORT),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "XLA_FLAGS": "",
    }


class Nodes:
    """The cluster of ray_nodes.py."""

    def __init__(self, process):
        self._process = process
        self.where = json.loads(process.stdout.readline())

    def kill_an_actor(self):
        """Whether there was one."""
        self._process.stdin.write("kill\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()) > 0


@pytest.fixture(scope="module")
def nodes(surroundings):
    process = subprocess.Popen(
        [sys.executable, SUPPORT / "ray_nodes.py"],
        env=surroundings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Nodes(process)
    finally:
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def work(tmp_path_factory, surroundings):
    """Images, one of them bad, a model, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("work")
    saved(folder / "model")
    (folder / "in").mkdir()
    for i in range(SHARDS * SIZE - 1):
        data = b"hello" if i == 5 else picture(i, 20 + i)
        (folder / f"in/{i:03d}.png").write_bytes(data)
    code, _, err = finish(start(folder, surroundings, "whole"))
    assert code == 0, err
    return folder


def start(folder, surroundings, out, *more, **env):
    return started(
        *("job_worker.py", "embed", "in", "--out", out, "--model", "model"),
        *("--shard-size", str(SIZE), "--max-error-share", "0.5", *more),
        cwd=folder,
        env=surroundings | {name: str(value) for name, value in env.items()},
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def same(folder, out):
    assert contents(folder / "whole") == contents(folder / out)


def test_killed_ten_times(nodes, work, surroundings):
    """The command, before whatever it writes, and actors, at any time."""
    rng, killed, lost = random.Random(0), 0, 0
    address = {"RAY_ADDRESS": nodes.where["address"]}
    while killed + lost < 10:
        if (killed + lost) % 3 == 2:
            process = start(work, surroundings, "ten", "--engine", "ray", **address)
            while process.poll() is None and not (found := nodes.kill_an_actor()):
                time.sleep(rng.uniform(0, 0.5))
            lost += process.poll() is None and found
            code, _, err = finish(process)
            assert code == 0, err
            # There is nothing left to be killed at: some of it is done again.
            for shard in rng.sample(range(SHARDS), 4):
                (work / f"ten/ledger/{shard:05d}.json").unlink()
            (work / "ten/summary.json").unlink()
        else:
            kill = {"KILL_AT": rng.randint(1, 12)}
            code, _, err = finish(
                start(work, surroundings, "ten", "--engine", "ray", **address, **kill)
            )
            assert code in (0, -signal.SIGKILL), err
            killed += code == -signal.SIGKILL
            if code == 0:
                (work / "ten/summary.json").unlink()
                (work / "ten/ledger/00003.json").unlink()
    code, _, err = finish(start(work, surroundings, "ten", "--engine", "ray", **address))
    assert code == 0, err
    same(work, "ten")


@pytest.mark.parametrize("what", ["killed", "lost_node"])
def test_no_row_is_lost(what, work, surroundings, tmp_path):
    done = subprocess.run(
        [sys.executable, SUPPORT / "ray_jobs.py", what, work / "model", tmp_path],
        env=surroundings, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_through_a_client(nodes, work, surroundings):
    engine = f"ray://127.0.0.1:{nodes.where['port']}"
    code, out, err = finish(start(work, surroundings, "client", "--engine", engine))
    assert code == 0 and err.startswith("siglip-jax: 1 item is in error; "), err
    assert len(err.splitlines()) == 1
    assert out.startswith(f"client: {SHARDS * SIZE - 1} items in {SHARDS} shards, 1 of which")
    same(work, "client")


@pytest.mark.parametrize(("engine", "address"), [("ray://127.0.0.1:1", ""), ("ray", "127.0.0.1:1")])
def test_an_address_nobody_answers(engine, address, work, surroundings):
    begun = time.monotonic()
    process = start(work, surroundings, "no", "--engine", engine, RAY_ADDRESS=address)
    code, _, err = finish(process)
    assert code == 2 and "127.0.0.1:1: nobody answers there (Connection refused); " in err
    assert len(err.splitlines()) == 1 and not (work / "no").exists()
    assert time.monotonic() - begun < 60


def test_a_model_that_a_node_has_not(nodes, work, surroundings):
    address = {"RAY_ADDRESS": nodes.where["address"]}
    process = start(work, surroundings, "no", "--engine", "ray", "--model", "/no/model", **address)
    code, _, err = finish(process)
    assert code == 2 and "/no/model cannot be loaded on the worker " in err
    assert len(err.splitlines()) == 1 and not (work / "no").exists()
