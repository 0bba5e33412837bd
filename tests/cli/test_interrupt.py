"""Ctrl-C, in processes of their own: an answer at once, the end at the second, nothing half
written."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import shapes
from paths import SUPPORT

pytestmark = pytest.mark.usefixtures("surroundings")
PLAIN = "what was begun is given up, and nothing half written stays; Ctrl-C again stops now"
JOB = "what is in hand is finished, and the same command goes on behind it; Ctrl-C again stops now"
RUN = (
    "the step in hand is finished and saved, and the same command goes on behind it; "
    "Ctrl-C again stops now"
)
TOWER = "siglip_jax.scoring.pipeline:Pipeline._embed"
LABELS = ["--labels", "cat", "dog"]
EMOJI = ["--model", "siglip_emoji"]
# Arguments, and where it gets stuck.
COMMANDS = {
    "score": (["pictures", *EMOJI, *LABELS], TOWER),
    "embed to a file": (["pictures", *EMOJI, "--out", "x.npz"], TOWER),
    "convert": (
        ["siglip_emoji", "out", "--to", "siglip_jax"],
        "siglip_jax.converters.safetensors_file:SafetensorsWriter.write",
    ),
    "evaluate": (["data/shapes.parquet", *EMOJI, "--task", "retrieval"], TOWER),
    "search": (["index", "a dog"], TOWER),
    "plan": (["siglip_emoji", "--on", "local"], "jax.stages:Lowered.compile"),
}


class Started:
    """A command that is stuck by now; the lines of its stderr come one by one."""

    def __init__(self, argv, stuck, how):
        self.process = subprocess.Popen(
            [sys.executable, SUPPORT / "stuck_command.py", *map(str, argv), "--quiet"],
            env=os.environ | {"STUCK": stuck, "HOW": how, "XLA_FLAGS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait(lambda: Path("stuck").exists())

    def _read(self):
        for line in self.process.stderr:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()

    def wait(self, there):
        """Fails where the process ends before, or gets stuck for good."""
        for _ in range(2400):
            if there():
                return
            assert self.process.poll() is None, (self.lines, self.process.stdout.read())
            with self._more:
                self._more.wait(0.05)
        raise AssertionError(self.lines)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def code(self):
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self._reader.join()
            self.process.stdout.close()
            self.process.stderr.close()


@pytest.fixture
def work(pictures, data, tmp_path):
    (tmp_path / "data").symlink_to(data)
    return tmp_path


def start(name, how):
    argv, stuck = COMMANDS[name]
    return Started([name.split()[0], *argv], stuck, how)


def left(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def index(work, cli):
    assert cli("embed", "pictures", *EMOJI, "--out", "index")[0] == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_one_ends_it_and_a_second_is_not_needed(work, index, name):
    before = left(work)
    started = start(name, "python")
    started.interrupt()
    assert started.code() == 130
    assert started.lines[-1:] == [f"siglip-jax: {PLAIN}"]
    assert left(work) == sorted([*before, "stuck"])


@pytest.mark.parametrize("name", COMMANDS)
def test_an_answer_at_once_and_the_end_at_the_second(work, index, name):
    """The main thread is in compiled code, which no exception gets out of."""
    before = left(work)
    started = start(name, "c")
    started.interrupt()
    started.wait(lambda: started.lines and started.lines[-1].endswith("again stops now"))
    assert started.lines[-1] == f"siglip-jax: {PLAIN}" and started.process.poll() is None
    started.interrupt()
    assert started.code() == 130
    assert started.lines[-1] == "siglip-jax: stopped"
    assert left(work) == sorted([*before, "stuck"])


def test_a_job(work):
    argv = ["embed", "pictures", *EMOJI, "--out", "index"]
    started = Started(argv, TOWER, "c")
    started.interrupt()
    started.wait(lambda: started.lines)
    assert started.lines == [f"siglip-jax: {JOB}"] and started.process.poll() is None
    started.interrupt()
    assert started.code() == 130
    assert not list((work / "index").rglob("*.parquet"))


def test_a_run(work, data):
    table = shapes.recipe(data, steps=40, save={"every": 4})
    (work / "r.toml").write_text(shapes.toml(table))
    argv = ["train", "r.toml", "--out", "run"]
    started = Started(argv, "siglip_jax.training.loop:_Run._tell", "c")
    started.interrupt()
    started.wait(lambda: started.lines)
    assert started.lines == [f"siglip-jax: {RUN}"] and started.process.poll() is None
    started.interrupt()
    assert started.code() == 130
