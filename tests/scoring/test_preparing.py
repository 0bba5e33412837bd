"""Processes that prepare images: what they make and say is what threads do, whoever ends them."""

import dataclasses
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pictures import encoded, scene
from PIL import Image
from saved_model import saved

import siglip_jax
from siglip_jax import helper
from siglip_jax.checkpoints import find
from siglip_jax.data.failures import PassingError
from siglip_jax.data.item import Item
from siglip_jax.preprocessing import ImageProfile, Patches, profile_for
from siglip_jax.preprocessing.example import example
from siglip_jax.scoring import preparing, preparing_server
from siglip_jax.scoring import scorer as scorer_module
from siglip_jax.scoring.budget import Closed
from siglip_jax.scoring.preparation import Preparer

V1, V2, NAFLEX = map(find, ("siglip_b16_224", "siglip2_b16_224", "siglip2_b16_naflex"))
BIG_VISION = profile_for(V1)
PICTURE = Image.fromarray(scene(120, 90))
CASES = {
    "big_vision": (V1, BIG_VISION),
    "draft": (V1, dataclasses.replace(
        BIG_VISION, image=dataclasses.replace(BIG_VISION.image, decode="draft"))),
    "open_clip": (V1, profile_for(V1, "open_clip")),
    "transformers": (V2, profile_for(V2, "transformers")),
    "NaFlex": (NAFLEX, profile_for(NAFLEX)),
    "NaFlex of transformers": (NAFLEX, profile_for(NAFLEX, "transformers")),
}  # fmt: skip


@pytest.fixture
def preparers():
    """(checkpoint, profile, options) to one with threads alone, and one with processes."""
    made = []

    def both(checkpoint=V1, profile=BIG_VISION, what="images", **options):
        given = what, checkpoint.config, profile
        made.extend(Preparer(*given, **options, processes=each) for each in (False, True))
        return made[-2:]

    yield both
    for each in made:
        each.end_processes()


def processes_of(preparer):
    return preparer._preparing.helpers


def same(ours, theirs):
    assert ours._replace(example=None, cause=None) == theirs._replace(example=None, cause=None)
    assert str(ours.cause) == str(theirs.cause)
    assert isinstance(ours.cause, PassingError) == isinstance(theirs.cause, PassingError)
    assert type(ours.example) is type(theirs.example)
    for one, other in zip(parts(ours.example), parts(theirs.example), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def parts(example):
    if example is None:
        return []
    return example if isinstance(example, Patches | tuple) else [example]


@pytest.mark.parametrize("name", CASES)
def test_the_bytes_are_those_of_a_thread(preparers, tmp_path, name):
    threads, processes = preparers(*CASES[name])
    items = []
    for form in ("JPEG", "PNG", "TIFF"):
        data = encoded(PICTURE.convert("RGBA") if form == "PNG" else PICTURE, form)
        file = tmp_path / form
        file.write_bytes(data)
        items += [Item(form, data), Item(f"{form}'s path", str(file))]
    for ours, theirs in zip(processes.several(items), threads.several(items), strict=True):
        assert theirs.error is None
        same(ours, theirs)
    assert len(processes_of(processes).idle) == 1


def test_whatever_is_wrong_is_said_as_a_thread_says_it(preparers, tmp_path):
    rotated = Image.Exif()
    rotated[0x0112] = 6
    missing = str(tmp_path / "missing \udcff.jpg")
    items = [
        Item("text", b"hello"),
        Item("empty", b""),
        Item("cut", encoded(PICTURE, "JPEG")[:900]),
        Item("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0"),
        Item("cut TIFF", encoded(PICTURE, "TIFF")[:900]),
        Item("large", encoded(Image.fromarray(scene(300, 400)), "PNG")),
        Item("missing", missing),
        Item("folder", str(tmp_path)),
        Item("in error", error="the server does not answer", passing=True),
        Item("array", np.asarray(PICTURE)),
        Item("none"),
        Item("rotated", encoded(PICTURE, "JPEG", exif=rotated)),
        Item("remote", encoded(PICTURE, "PNG"), stamp="of a bucket"),
        Item("kept", encoded(PICTURE, "PNG"), kept={"url": "a"}),
        Item("good", encoded(PICTURE, "PNG"), "a text"),
    ]
    image = dataclasses.replace(BIG_VISION.image, max_pixels=100_000)
    threads, processes = preparers(profile=dataclasses.replace(BIG_VISION, image=image))
    done = processes.several(items)
    assert [item.key for item in done if item.error is None] == [
        "array", "rotated", "remote", "kept", "good",
    ]  # fmt: skip
    assert done[11].rotated and done[12].stamp == "of a bucket"
    for ours, theirs in zip(done, threads.several(items), strict=True):
        same(ours, theirs)


def test_a_file_on_a_disk_that_fails_may_be_read_another_time(preparers, monkeypatch, tmp_path):
    _, processes = preparers()
    made = preparing.Made("a: cannot be read: I/O error", True, None, None, None, False, None, None)
    monkeypatch.setattr(processes, "_preparing", lambda items: [made])
    (done,) = processes.several([Item("a", str(tmp_path / "a"))])
    assert done.passing and isinstance(done.cause, PassingError)
    monkeypatch.undo()


def test_pairs_have_their_texts_from_here(preparers):
    class Tokenizer:
        def encode(self, texts, warn):
            if texts == ["no"]:
                raise ValueError("there is no such word")
            return np.array([[len(text)] for text in texts])

    threads, processes = preparers(what="pairs", tokenizer=Tokenizer())
    data = encoded(PICTURE, "PNG")
    items = [Item("a", data, "a dog"), Item("b", data, "no"), Item("c", b"hello", "yes"),
             Item("d", data)]  # fmt: skip
    for ours, theirs in zip(processes.several(items), threads.several(items), strict=True):
        same(ours, theirs)


def test_what_one_made_is_not_changed_by_the_next(preparers):
    _, processes = preparers()
    light, dark = (encoded(Image.new("RGB", (9, 9), grey), "PNG") for grey in ("white", "black"))
    first = processes.several([Item("a", light)])[0].example
    # More of them than before, which need more memory.
    others = processes.several([Item("a", dark)] * 20)
    assert (first == 255).all() and all((other.example == 0).all() for other in others)


def test_the_budget_is_that_of_all(preparers):
    """What exceeds a process's share it asks for; the rest waits, and is given back."""
    _, processes = preparers(memory=1 << 23)
    large = Item("large", encoded(Image.fromarray(scene(700, 800)), "PNG"))
    small = Item("small", encoded(PICTURE, "PNG"))
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(processes.several, [[large, small, large]] * 3))
    assert [item.error for each in done for item in each] == [None] * 9
    # Two would be more than there is.
    assert processes.decoding.most == 16 * 700 * 800 and processes.decoding.used == 0
    assert processes._files.most == processes._files.used == 0
    processes.close()
    with pytest.raises(Closed):
        processes.several([large])
    assert not processes_of(processes).busy


def test_one_that_is_killed_while_it_prepares(preparers, monkeypatch):
    """By its first request; each item is tried in another process."""
    threads, processes = preparers()
    helpers, begun = processes_of(processes), []
    start = helpers._start

    def first_is_stopped():
        begun.append(start())
        if len(begun) == 1:
            os.kill(begun[0].pid, signal.SIGSTOP)
            threading.Timer(0.3, os.kill, (begun[0].pid, signal.SIGKILL)).start()
        return begun[-1]

    monkeypatch.setattr(helpers, "_start", first_is_stopped)
    items = [Item("a", encoded(PICTURE, "PNG")), Item("b", b"hello")]
    for ours, theirs in zip(processes.several(items), threads.several(items), strict=True):
        same(ours, theirs)
    assert len(begun) == 2 and helpers.idle == begun[1:]


@pytest.mark.parametrize(("total", "workers", "by"), [(20, None, 2), (19, None, 0), (20, 3, 0)])
def test_a_scorer_has_them_for_many_images(monkeypatch, tmp_path, total, workers, by):
    model = siglip_jax.load(saved(tmp_path / "m"))
    items = [Item(str(n), encoded(PICTURE.rotate(n), "PNG")) for n in range(20)]
    asked, call = [], preparing.Preparing.__call__

    def heard(self, group):
        asked.extend(item.key for item in group)
        return call(self, group)

    monkeypatch.setattr(preparing.Preparing, "__call__", heard)
    monkeypatch.setattr(scorer_module, "usual_decode_processes", lambda devices, n: 2 * (n >= 20))
    z, _ = model.scorer(batch_size=8, workers=workers).embed_items(items, total=total)
    assert len(asked) == (20 if by else 0)
    np.testing.assert_array_equal(z, model.scorer(batch_size=8).embed_items(items)[0])


ENDS = """
import os, siglip_jax.scoring.preparing_server as server
prepare = server.Preparer.__call__
server.Preparer.__call__ = lambda self, item: (
    os._exit(3) if item.image == b"bad" else prepare(self, item))
server.serve()
"""


def test_an_item_that_ends_two_processes_costs_no_other(preparers, monkeypatch):
    monkeypatch.setattr(preparing, "_PROGRAM", ENDS)
    threads, processes = preparers()
    items = [Item("a", encoded(PICTURE, "PNG")), Item("b", b"bad"), Item("c", b"hello")]
    done = processes.several(items)
    assert done[1].error == "decoding it ended the process that did (exit code 3)"
    for ours, theirs in zip(done[::2], threads.several(items[::2]), strict=True):
        same(ours, theirs)
    assert not processes_of(processes).busy


def test_one_that_never_answers(preparers, monkeypatch):
    monkeypatch.setattr(preparing, "_PROGRAM", "import time; time.sleep(60)")
    monkeypatch.setattr(helper, "WALL", 0.1)
    monkeypatch.setattr(helper, "LOOKS", 0.05)
    _, processes = preparers()
    done = processes.several([Item("a", encoded(PICTURE, "PNG")), Item("b", b"")])
    assert {item.error for item in done} == {
        "decoding it took more than 10 seconds and was given up"
    }
    assert processes_of(processes).idle == []


def test_a_process_asks_for_no_more_than_it_must():
    class Pipe(list):
        write, flush = list.append, lambda self: None

        def readline(self):
            return b"\n"

    asked = Pipe()
    lent = preparing_server.Lent("files", 9, asked, asked)
    lent.take(preparing_server.SHARE)
    lent.give(preparing_server.SHARE)
    assert asked == []
    lent.take(preparing_server.SHARE + 1)
    lent.give(preparing_server.SHARE + 1)
    assert [b'"amount": 4194305' in asked[0], b'"amount": -4194305' in asked[1]] == [True, True]


def test_a_profile_without_a_square_needs_a_grid():
    profile = ImageProfile(decode="fastdct", resize="tf_antialias", res=None, max_patches=4)
    with pytest.raises(ValueError, match="use naflex_patches"):
        example(scene(4, 4), profile, None)
