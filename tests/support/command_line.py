"""Fixtures that run the command line in this process, away from this machine's files."""

import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from pictures import scene
from PIL import Image
from saved_model import saved

from siglip_jax.cli.main import main
from siglip_jax.converters import convert
from siglip_jax.converters.record import file_digests


@pytest.fixture
def surroundings(monkeypatch, tmp_path):
    """Nothing of this machine: no network, no cache, a folder of our own."""
    monkeypatch.setenv("SIGLIP_JAX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(saved(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for i, name in enumerate(("b.png", "a.PNG", "sub/c.png")):
        Image.fromarray(scene(40, 50 + i, seed=i)).save(folder / name, "PNG")
    return folder


@pytest.fixture
def cli(capsys):
    """Runs a command; (exit code, stdout, lines of stderr)."""

    def run(*argv):
        try:
            code = main([str(argument) for argument in argv])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run


def on_a_terminal(monkeypatch, *argv, columns=80):
    """What a person sees on stdout, escape codes removed."""
    master, slave = pty.openpty()
    shown = bytearray()

    def drain():
        while True:
            try:
                block = os.read(master, 65536)
            except OSError:  # Linux's end of file
                return
            if not block:
                return
            shown.extend(block)

    reader = threading.Thread(target=drain)
    reader.start()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with monkeypatch.context() as patch, os.fdopen(slave, "w", encoding="utf-8") as terminal:
        patch.setattr(sys, "stdout", terminal)
        code = main([str(argument) for argument in argv])
    reader.join()
    os.close(master)
    return code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n")


def shell(*argv, code=0, **options):
    """`python -c` or `-m` in a process of its own."""
    done = subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, timeout=120, **options
    )
    assert done.returncode == code, done.stderr
    return done


def everything(folder):
    """Digest of every file below, and every folder."""
    entries = sorted(folder.rglob("*"))
    folders = [entry for entry in entries if entry.is_dir()]
    return folders, file_digests([entry for entry in entries if entry.is_file()], folder)


@pytest.fixture
def hf(model, tmp_path):
    """The tiny model as transformers has it."""
    convert(model, tmp_path / "hf", to="transformers")
    return tmp_path / "hf"
