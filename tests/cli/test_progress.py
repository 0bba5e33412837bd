"""What a person sees while a command works, and what a log says."""

import io
import json
import re
import sys
import time

import pytest

from siglip_jax.activity import activity
from siglip_jax.cli import progress
from siglip_jax.cli.main import COMMANDS, main
from siglip_jax.cli.progress import Progress

pytestmark = pytest.mark.usefixtures("surroundings")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[80, 120])
def columns(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("TERM", "xterm")
    return request.param


@pytest.fixture
def opened(monkeypatch, columns):
    """Makes a terminal of stderr, from its call on: pytest sets its own before each test."""

    def terminal():
        shown = Terminal()
        monkeypatch.setattr(sys, "stderr", shown)
        return shown

    return terminal


def frames(shown):
    """The lines as they stood, one after the other, without escape codes."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    return [frame.rstrip() for frame in re.split(r"[\r\n]+", plain) if frame.strip()]


def until(there):
    deadline = time.monotonic() + 20
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_spinner_while_nothing_is_counted_yet(opened):
    terminal = opened()
    with activity("compiling the image tower", last=31.2), Progress():
        until(lambda: "compiling" in terminal.getvalue())
    assert re.fullmatch(r"\S compiling the image tower +0:31 last time", frames(terminal)[0])
    # It is gone at the end, and the cursor is back.
    assert terminal.getvalue().endswith("\x1b[2K") or "\x1b[?25h" in terminal.getvalue()[-40:]


def test_one_line_however_much_there_is_to_say(opened, columns):
    terminal = opened()
    what = "embedding images of a name that is longer than any line of a terminal is " * 2
    with activity(what, total=2_000_000, unit="images") as step, Progress():
        step.update(3, 2_000_000, "device 99% busy, 12 unreadable")
        until(lambda: "embedding" in terminal.getvalue())
    assert all(len(frame) <= columns for frame in frames(terminal))
    assert {frame.split(" ")[1] for frame in frames(terminal)} == {"embedding"}


def test_no_time_left_before_the_first_batch_is_back(opened):
    terminal = opened()
    with activity("embedding", total=64) as step, Progress():
        until(lambda: "0 of 64" in terminal.getvalue())
        time.sleep(0.3)
        step.advance(8)
        until(lambda: "8 of 64" in terminal.getvalue())
        assert "left" not in terminal.getvalue()
        step.advance(8)
        until(lambda: "left" in terminal.getvalue())
    assert re.search(r"16 of 64, [\d.]+/s, 0:\d\d left$", frames(terminal)[-1])


def test_the_latest_is_shown_and_then_what_it_is_a_part_of(opened):
    terminal = opened()
    with activity("embedding"), Progress():
        with activity("loading weights", unit="bytes") as step:
            step.update(5_000_000, 10_000_000)
            until(lambda: "5.0 of 10.0 MB" in terminal.getvalue())
        until(lambda: frames(terminal)[-1].endswith(" embedding"))


def test_a_result_is_not_written_into_the_line(monkeypatch, opened):
    terminal = opened()
    monkeypatch.setattr(sys, "stdout", terminal)
    with activity("searching"), Progress():
        until(lambda: "searching" in terminal.getvalue())
        print("the result")
        time.sleep(0.3)
    after = terminal.getvalue().partition("the result")[2]
    assert "searching" not in after and sys.stdout is terminal


@pytest.mark.parametrize("said", [{}, {"silent": True}])
def test_a_log_has_a_line_now_and_then(monkeypatch, capsys, said):
    monkeypatch.setattr(progress, "INTERVAL", 0.05)
    with activity("embedding", total=9) as step, Progress(**said):
        step.advance(3)
        time.sleep(0.5)
    out, err = capsys.readouterr()
    lines = set(err.splitlines())
    assert out == "" and lines == (set() if said else {"siglip-jax: embedding: 3 of 9"})


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_silent(monkeypatch, capsys, opened, option, pictures):
    terminal = opened()
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    argv = ["score", str(pictures), "--model", "siglip_emoji", "--labels", "cat", option]
    assert main(argv) == 0
    assert terminal.getvalue() == ""
    out = capsys.readouterr().out
    assert json.loads(out)["images"] if option == "--json" else "cat" in out


def test_every_command_can_be_quiet():
    from siglip_jax.cli.main import make_parser

    (commands,) = (a for a in make_parser()._actions if a.dest == "command")
    assert all("--quiet" in commands.choices[c.NAME]._option_string_actions for c in COMMANDS)


def test_what_is_shown_of_a_command(monkeypatch, opened, pictures):
    terminal = opened()
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_FRAMES", 200)
    argv = ["embed", str(pictures), "--model", "siglip_emoji", "--out", "x.npz"]
    assert main(argv) == 0
    shown = "\n".join(frames(terminal))
    assert "compiling the image tower, batches of 8" in shown
