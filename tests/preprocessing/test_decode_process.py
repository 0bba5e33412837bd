"""Processes that make what a model takes of images: as threads do, and whoever ends them."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, scene
from PIL import Image

from siglip_jax.checkpoints import find
from siglip_jax.preprocessing import ImageProfile, Patches, decode_process, profile_for
from siglip_jax.preprocessing.decode import decoded
from siglip_jax.preprocessing.decode_process import Ended, Failed, make
from siglip_jax.preprocessing.example import Grid, Layout, example
from siglip_jax.preprocessing.pixels import size_of
from siglip_jax.preprocessing.shared_slot import Slot

V1, V2, NAFLEX = map(find, ("siglip_b16_224", "siglip2_b16_224", "siglip2_b16_naflex"))
GRID = Grid(16, 64)
BIG_VISION = profile_for(V1).image
PICTURE = Image.fromarray(scene(120, 90))
CASES = {
    "big_vision": (BIG_VISION, None),
    "draft": (dataclasses.replace(BIG_VISION, decode="draft", res=32), None),
    "open_clip": (profile_for(V1, "open_clip").image, None),
    "transformers": (profile_for(V2, "transformers").image, None),
    "NaFlex": (profile_for(NAFLEX).image, GRID),
    "NaFlex of transformers": (profile_for(NAFLEX, "transformers").image, GRID),
}


@pytest.fixture
def pool(monkeypatch):
    pool = decode_process._Pool()
    monkeypatch.setattr(decode_process, "_POOL", pool)
    yield pool
    pool.close()


@pytest.mark.parametrize("name", CASES)
def test_the_bytes_are_those_of_a_thread(pool, name):
    profile, grid = CASES[name]
    layout = Layout(profile, grid)
    for form in ("JPEG", "PNG", "TIFF"):
        image = PICTURE.convert("RGBA") if form == "PNG" else PICTURE
        data = encoded(image, form)
        pixels = decoded(data, profile)
        made = make(data, profile, layout, limited=form == "TIFF")
        assert made[1:] == size_of(pixels)
        expected = example(pixels, profile, grid)
        assert isinstance(made.example, Patches) == (grid is not None)
        for ours, theirs in zip(parts(made.example), parts(expected), strict=True):
            np.testing.assert_array_equal(ours, theirs, strict=True)
    assert len(pool._idle) == 1


def parts(made):
    return made if isinstance(made, Patches) else [made]


def test_what_one_process_made_is_not_changed_by_the_next(pool):
    layout = Layout(BIG_VISION, None)
    light, dark = (encoded(Image.new("RGB", (9, 9), grey), "PNG") for grey in ("white", "black"))
    first = make(light, BIG_VISION, layout, limited=False).example
    make(dark, BIG_VISION, layout, limited=False)
    assert (first == 255).all()


def test_a_larger_example_than_the_one_before(pool):
    for res in (16, 300, 40):
        profile = dataclasses.replace(BIG_VISION, res=res)
        made = make(encoded(PICTURE, "PNG"), profile, Layout(profile, None), limited=False)
        np.testing.assert_array_equal(
            made.example, example(decoded(PICTURE, profile), profile, None)
        )


@pytest.mark.parametrize("most", [0, 1 << 22])
def test_a_file_goes_through_memory_or_a_pipe(pool, monkeypatch, most):
    monkeypatch.setattr(decode_process, "_MOST_SHARED", most)
    for picture in (scene(300, 400), scene(20, 30)):
        data = encoded(Image.fromarray(picture), "PNG")
        made = make(data, BIG_VISION, Layout(BIG_VISION, None), limited=False)
        np.testing.assert_array_equal(made.example, example(picture, BIG_VISION, None))


def test_a_process_that_is_killed_is_replaced(pool):
    layout, data = Layout(BIG_VISION, None), encoded(PICTURE, "PNG")
    expected = make(data, BIG_VISION, layout, limited=False).example
    (one,) = pool._idle
    os.kill(one._process.pid, signal.SIGKILL)
    # It may be asked before the system has ended it.
    for _ in range(2):
        made = make(data, BIG_VISION, layout, limited=False)
        np.testing.assert_array_equal(made.example, expected)
    assert [process.lives for process in pool._idle] == [True]


def test_a_process_that_is_killed_while_it_decodes(pool, monkeypatch):
    """By its first request; the next process does it."""
    layout, data, begun = Layout(BIG_VISION, None), encoded(PICTURE, "PNG"), []
    started = decode_process._Process

    def first_is_stopped():
        begun.append(started())
        if len(begun) == 1:
            os.kill(begun[0]._process.pid, signal.SIGSTOP)
            threading.Timer(0.3, os.kill, (begun[0]._process.pid, signal.SIGKILL)).start()
        return begun[-1]

    monkeypatch.setattr(decode_process, "_Process", first_is_stopped)
    made = make(data, BIG_VISION, layout, limited=False)
    np.testing.assert_array_equal(
        made.example, example(decoded(data, BIG_VISION), BIG_VISION, None)
    )
    assert len(begun) == 2 and pool._idle == begun[1:]


def test_a_file_that_ends_two_processes(pool, monkeypatch):
    monkeypatch.setattr(decode_process, "_PROGRAM", "import sys; sys.stdin.readline(); sys.exit(3)")
    with pytest.raises(Ended, match=r"ended the process that did \(exit code 3\)"):
        make(encoded(PICTURE, "PNG"), BIG_VISION, Layout(BIG_VISION, None), limited=False)
    assert pool._idle == [] and not pool._busy


def test_an_answer_that_is_not_read_to_its_end_costs_the_process(pool):
    class Full(Layout):
        def read(self, memory):
            raise MemoryError

    data = encoded(PICTURE, "PNG")
    with pytest.raises(MemoryError):
        make(data, BIG_VISION, Full(BIG_VISION, None), limited=False)
    assert pool._idle == [] and not pool._busy


def test_a_process_that_never_answers(pool, monkeypatch):
    monkeypatch.setattr(decode_process, "_PROGRAM", "import time; time.sleep(60)")
    monkeypatch.setattr(decode_process, "_WALL", 0.2)
    monkeypatch.setattr(decode_process, "_LOOKS", 0.1)
    with pytest.raises(Failed, match="took more than 10 seconds and was given up") as error:
        make(encoded(PICTURE, "PNG"), BIG_VISION, Layout(BIG_VISION, None), limited=False)
    assert not isinstance(error.value, Ended) and pool._idle == []


KILLED = """
import sys, time
from siglip_jax.preprocessing import decode_process, ImageProfile
from siglip_jax.preprocessing.example import Layout
profile = ImageProfile(decode="fastdct", resize="tf_bilinear", res=8)
decode_process.make(sys.stdin.buffer.read(), profile, Layout(profile, None), limited=False)
print(decode_process._POOL._idle[0]._process.pid, flush=True)
time.sleep(60)
"""


def test_processes_end_with_the_one_that_asks():
    asks = subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with asks:
        asks.stdin.write(encoded(PICTURE, "PNG"))
        asks.stdin.close()
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


def test_a_profile_without_a_square_needs_a_grid():
    profile = ImageProfile(decode="fastdct", resize="tf_antialias", res=None, max_patches=4)
    with pytest.raises(ValueError, match="use naflex_patches"):
        example(scene(4, 4), profile, None)
