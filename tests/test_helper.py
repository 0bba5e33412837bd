"""Processes that do a part of the work: kept, replaced, given up, and gone with who asks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from siglip_jax import helper as module
from siglip_jax.helper import Helper, Helpers
from siglip_jax.shared_slot import Slot

ECHO = "import sys\nfor line in sys.stdin: print(line.strip().upper(), flush=True)"


class Silent(Exception):
    pass


@pytest.fixture
def helpers():
    made = Helpers(lambda: Helper(ECHO), kept=Silent)
    yield made
    made.close()


def said(helper, line):
    helper.send(line, b"\n")
    return helper.answers.readline().strip()


def test_one_is_kept_for_the_next(helpers):
    with helpers.one() as first:
        assert said(first, b"a") == b"A"
        with helpers.one() as second:
            assert said(second, b"b") == b"B"
    assert helpers.idle == [second, first] and not helpers.busy
    with helpers.one() as again:
        assert again is first


def test_one_that_somebody_ends_is_replaced(helpers):
    with helpers.one() as first:
        pass
    os.kill(first.pid, signal.SIGKILL)
    first._process.wait()
    with helpers.one() as second:
        assert second is not first and said(second, b"a") == b"A"
    assert helpers.idle == [second]


@pytest.mark.parametrize(("raised", "costs"), [(Silent, False), (MemoryError, True)])
def test_an_answer_that_is_not_read_to_its_end_costs_the_process(helpers, raised, costs):
    with pytest.raises(raised), helpers.one() as one:
        raise raised
    assert one.ended == costs and helpers.idle == ([] if costs else [one]) and not helpers.busy


def test_one_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "WALL", 0.1)
    monkeypatch.setattr(module, "LOOKS", 0.05)
    helpers = Helpers(lambda: Helper("import time; time.sleep(60)"), kept=Silent)
    with pytest.raises(Silent), helpers.one(2) as one:
        assert one.answers.readline() == b"" and one.overdue
        assert one.end() == -signal.SIGKILL
        raise Silent
    assert helpers.idle == []


KILLED = """
import time
from siglip_jax.helper import Helper
one = Helper("import sys; sys.stdin.read()")
print(one.pid, flush=True)
time.sleep(60)
"""


def test_they_end_with_the_one_that_asks():
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE) as asks:
        process = int(asks.stdout.readline())
        os.kill(process, 0)
        asks.kill()
    for _ in range(200):
        if not alive(process):
            return
        time.sleep(0.05)
    raise AssertionError("it still runs")


def alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_slot_grows_and_is_seen_by_both():
    one = Slot()
    other = Slot(os.dup(one.file))
    small = one.bytes(4)
    small[:] = 1
    one.bytes(10_000)[-1] = 2
    assert other.bytes(10_000)[[0, -1]].tolist() == [1, 2] and small.tolist() == [1] * 4
    one.close()
    other.close()
