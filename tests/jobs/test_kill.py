"""Jobs that are killed and go on: nothing is lost, nothing is twice, all is the same."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from job_inputs import contents, picture, started, table
from saved_model import saved
from tolerances import EMBEDDING

SHARDS, SIZE = 7, 3
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Pictures, one of them bad, a model, and what an uninterrupted run makes of them."""
    folder = tmp_path_factory.mktemp("work")
    saved(folder / "model")
    (folder / "in").mkdir()
    for i in range(SHARDS * SIZE - 1):
        data = b"hello" if i == 5 else picture(i, 20 + i)
        (folder / f"in/{i:03d}.png").write_bytes(data)
    assert finish(start(folder, "whole"))[0] == 0
    return folder


def start(folder, out, *more, source="in", **env):
    environment = os.environ | {
        "XLA_FLAGS": "",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return started(
        *("job_worker.py", "embed", source, "--out", out, "--model", "model"),
        *("--shard-size", str(SIZE), "--max-error-share", "0.5", *more),
        cwd=folder,
        env=environment | {name: str(value) for name, value in env.items()},
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode in (0, KILLED, 143, 130, -signal.SIGTERM), err
    return process.returncode, out, err


def same(folder, out):
    one, other = contents(folder / "whole"), contents(folder / out)
    assert one.keys() == other.keys() and one == other
    assert len([name for name in one if name.startswith("data/")]) == SHARDS


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_point(work, seed):
    rng = random.Random(seed)
    deaths = 0
    # The first is killed before its manifest is whole, the others sooner or later.
    for kill_at in [rng.randint(1, 2)] + [rng.randint(3, 18) for _ in range(4)]:
        code, _, _ = finish(start(work, f"killed{seed}", KILL_AT=kill_at))
        deaths += code == KILLED
    assert deaths >= 3
    assert finish(start(work, f"killed{seed}"))[0] == 0
    same(work, f"killed{seed}")


@pytest.mark.slow
@pytest.mark.parametrize("parts", [None, 3])
def test_killed_ten_times(work, parts):
    """Alone, and in parts of which any may be killed at any time."""
    rng = random.Random(10)
    out, deaths = f"ten-{parts}", 0
    argvs = [("--part", f"{part}/{parts}") for part in range(1, parts + 1)] if parts else [()]
    for _ in range(10):
        code, _, _ = finish(start(work, out, *rng.choice(argvs), KILL_AT=rng.randint(1, 5)))
        deaths += code == KILLED
    assert deaths >= 8
    for argv in argvs:
        assert finish(start(work, out, *argv))[0] == 0
    # Of several that end at a time none removes what may become the summary of another.
    for left in (work / out).glob(".summary.json.*.tmp"):
        assert parts
        left.unlink()
    same(work, out)


def test_two_processes_of_which_either_may_die(work):
    rng = random.Random(2)
    for round in range(3):
        kills = [rng.randint(5, 20), rng.randint(5, 20)] if round < 2 else [0, 9]
        pair = [
            start(work, "shared", "--shared", PATIENCE=2, SLOW=0.02, KILL_AT=kill) for kill in kills
        ]
        codes = [finish(process)[0] for process in pair]
        assert round < 2 or codes[0] == 0
    same(work, "shared")
    assert list((work / "shared/claims").iterdir()) == []


def test_two_processes_share_the_work(work):
    pair = [start(work, "together", "--shared", SLOW=0.1) for _ in range(2)]
    said = [finish(process) for process in pair]
    assert [code for code, _, _ in said] == [0, 0], said
    same(work, "together")


def test_under_jax_distributed(work):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pair = [
        start(
            *(work, "pod"),
            SLOW=0.1,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES=2,
            JAX_PROCESS_ID=rank,
        )
        for rank in range(2)
    ]
    said = [finish(process) for process in pair]
    assert [code for code, _, _ in said] == [0, 0], said
    same(work, "pod")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_finishes_the_shard_in_hand(work, number):
    name = f"told{number}"
    process = start(work, name, SLOW=0.2)
    entries = work / name / "ledger"
    while not (entries.is_dir() and list(entries.glob("0*.json"))) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    code, out, err = finish(process)
    done = len(list(entries.iterdir()))
    again = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    promise = "what is in hand is finished, and the same command goes on behind it"
    assert err == f"siglip-jax: {promise}; {again} again stops now\n"
    assert code == 128 + number and 1 < done < SHARDS, out
    assert f"stopped by {number.name}: {done} of {SHARDS} shards are done" in out
    assert not (work / name / "summary.json").exists()
    assert finish(start(work, name))[0] == 0
    same(work, name)


def test_a_second_signal_ends_it_at_once(work):
    process = start(work, "twice", SLOW=3)
    while not (work / "twice/data").is_dir() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] in (-signal.SIGTERM, 143)
    assert finish(start(work, "twice"))[0] == 0
    same(work, "twice")


@pytest.mark.parametrize("seed", range(2))
def test_an_update_killed_at_any_point(work, seed, tmp_path):
    """Rows that stayed, went, changed and came: those of a job on the new source, once each."""
    rng = random.Random(seed)
    photos = tmp_path / "in"
    photos.mkdir()
    for number in range(12):
        (photos / f"{number:02d}.png").write_bytes(picture(number))
    names = [str(photos), str(tmp_path / "out"), str(tmp_path / "anew")]
    assert finish(start(work, names[1], source=names[0]))[0] == 0
    for number in (0, 4, 5, 7):
        (photos / f"{number:02d}.png").unlink()
    for number in (1, 20, 21, 22, 23):
        (photos / f"{number:02d}.png").write_bytes(picture(100 + number))
    deaths = 0
    for kill_at in [rng.randint(1, 6) for _ in range(3)] + [rng.randint(4, 16) for _ in range(3)]:
        code, _, _ = finish(start(work, names[1], "--update", source=names[0], KILL_AT=kill_at))
        deaths += code == KILLED
    assert deaths >= 3
    # After its manifest is written, the same command without the option goes on as well.
    assert finish(start(work, names[1], "--update", source=names[0]))[0] == 0
    assert finish(start(work, names[1], source=names[0]))[0] == 0
    assert finish(start(work, names[2], source=names[0]))[0] == 0
    ours, anew = (table(Path(name)).sort_by("key").to_pydict() for name in names[1:])
    assert ours["key"] == anew["key"] and len(ours["key"]) == 12
    np.testing.assert_allclose(
        np.array(ours["embedding"]), np.array(anew["embedding"]), rtol=0, atol=EMBEDDING
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dead", "how", "said"),
    [
        (1, signal.SIGKILL, "process 1 of 2 has not been heard of for 20 seconds, and this one"),
        (0, signal.SIGKILL, "process 0, through which all talk, is gone, and this one"),
        (0, signal.SIGSTOP, "process 0, through which all talk, is gone, and this one"),
    ],
    ids=["killed", "first-killed", "first-hangs"],
)
def test_when_a_process_of_several_dies_the_other_says_so(work, tmp_path, dead, how, said):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pair = [
        start(
            *(work, str(tmp_path / "dies")),
            SLOW=100,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES=2,
            JAX_PROCESS_ID=rank,
        )
        for rank in range(2)
    ]
    while not (tmp_path / "dies/data").is_dir() and pair[0].poll() is None:
        time.sleep(0.05)
    other = pair[1 - dead]
    pair[dead].send_signal(how)
    try:
        _, err = other.communicate(timeout=120)
    finally:
        other.kill()
        pair[dead].kill()
        pair[dead].communicate()
    assert other.returncode == 2, err
    assert f"siglip-jax: error: {said}" in err


NO_ANSWER = """
import sys, time
from siglip_jax.cli import distributed

distributed._SILENT = 0.5

class Client:
    def key_value_set(self, *arguments, **options):
        if sys.argv[2] == "hangs":
            time.sleep(1000)
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out")

    key_value_dir_get = shutdown = wait_at_barrier = key_value_set

distributed._peers = distributed.Peers(Client(), int(sys.argv[1]), 2, "127.0.0.1:1")
distributed.finish(0)
"""


@pytest.mark.parametrize("what", ["hangs", "fails"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_job_that_is_complete_ends_well_whatever_the_others_do(index, what):
    command = [sys.executable, "-c", NO_ANSWER, str(index), what]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
