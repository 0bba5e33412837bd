"""Reading and decoding ahead: in order, and never more at a time than it may be."""

import dataclasses
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from job_inputs import Told, picture
from pictures import encoded, scene
from PIL import Image
from saved_model import saved

import siglip_jax
from siglip_jax.data.item import Item
from siglip_jax.scoring.budget import Budget, Closed
from siglip_jax.scoring.reading import Feed, Unreadable
from siglip_jax.scoring.rows import Prepared


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m")).scorer()


def feed(source, prepare, pool, ahead=4, memory=10**6, **options):
    return Feed(source.read(0), lambda items: list(map(prepare, items)), pool, ahead=ahead,
                memory=memory, **options)  # fmt: skip


def test_in_order_and_no_more_ahead_than_told():
    read, source = [], Told([Item(str(i), text="x") for i in range(50)], 50)
    whole = source.read
    source.read = lambda shard: (read.append(item) or item for item in whole(shard))

    def prepare(item):
        time.sleep(0.001 * (int(item.key) % 3))
        return Prepared(item.key)

    with ThreadPoolExecutor(3) as pool:
        for place, item in enumerate(feed(source, prepare, pool)):
            assert item.key == str(place)
            # Four are prepared or wait to be, one is here, one waits for a place.
            assert len(read) <= place + 6
        assert len(read) == 50


def test_files_are_not_read_before_there_is_room():
    source, gate = Told([Item(str(i), bytes(400)) for i in range(9)], 9), threading.Event()
    held = []
    whole = source.read
    source.read = lambda shard: (held.append(item) or item for item in whole(shard))

    def prepare(item):
        gate.wait()
        return Prepared(item.key)

    with ThreadPoolExecutor(9) as pool:
        waiting = feed(source, prepare, pool, ahead=9, memory=1000)
        time.sleep(0.3)
        assert len(held) == 3  # two fit, the third has been read and waits
        gate.set()
        assert [item.key for item in waiting] == list(map(str, range(9)))


def test_pictures_are_decoded_when_there_is_room(scorer):
    size = 16 * 16 * 20  # bytes that one of these is counted as
    preparer = scorer.preparer("images", 3 * size)
    items = [Item(str(i), picture(i)) for i in range(40)]
    items[7] = Item("7", picture(7, 100, 200))  # alone more than there is
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(preparer, items))
    assert [item.error for item in done] == [None] * 40 and done[7].height == 200
    assert preparer.decoding.used == 0 and preparer.decoding.most == 16 * 100 * 200


@pytest.mark.parametrize(
    ("mode", "form", "bytes_per_pixel"),
    [("RGB", "PNG", 16), ("RGBA", "PNG", 28), ("LA", "PNG", 28), ("CMYK", "JPEG", 36),
     ("L", "JPEG", 16), ("RGB", "TIFF", 16), ("CMYK", "TIFF", 36)],
)  # fmt: skip
def test_the_budget_counts_what_decoding_takes(scorer, mode, form, bytes_per_pixel):
    preparer = scorer.preparer("images", 1 << 20)
    image = Image.new(mode, (30, 20))
    assert preparer(Item("a", encoded(image, form))).error is None
    assert preparer.decoding.most == bytes_per_pixel * 30 * 20
    clear = Image.new("P", (30, 20))
    preparer(Item("a", encoded(clear, "PNG", transparency=3)))
    assert preparer.decoding.most == max(bytes_per_pixel, 28) * 30 * 20


@pytest.mark.parametrize("what", ["large", "pipe", "device"])
def test_only_regular_files_within_the_budget_are_read(scorer, tmp_path, what):
    path = tmp_path / "a.jpg"
    if what == "large":
        with path.open("wb") as file:
            file.truncate(3 << 30)
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    preparer = scorer.preparer("images", 1 << 20)
    error = preparer(Item("a", str(path))).error
    said = "it has 3,221,225,472 bytes, more than the 1,048,576 that fit here"
    expected = said if what == "large" else "it is no regular file"
    assert error == f"{path}: cannot be read: {expected}"
    assert preparer._files.used == preparer.decoding.used == 0


def test_several_are_prepared_in_one_call():
    calls = []

    def several(items):
        calls.append([item.key for item in items])
        return [Prepared(item.key) for item in items]

    items = [Item(str(i), text="x") for i in range(10)]
    with ThreadPoolExecutor(1) as pool:
        waiting = Feed(items, several, pool, ahead=4, memory=9, together=4)
        assert [item.key for item in waiting] == list("0123456789")
    assert calls == [list("0123"), list("4567"), list("89")]


def test_a_call_begins_before_its_files_leave_no_room():
    """Nobody would give back what a call holds that does not begin."""
    calls = []

    def several(items):
        calls.append(len(items))
        return [Prepared(item.key) for item in items]

    items = [Item(str(i), bytes(400)) for i in range(9)]
    with ThreadPoolExecutor(1) as pool:
        done = list(Feed(items, several, pool, ahead=9, memory=1000, together=9))
    assert len(done) == 9 and sum(calls) == 9 and max(calls) == 2


def test_what_was_read_before_an_error_is_prepared():
    source = Told([*(Item(str(i), text="x") for i in range(5)), OSError("gone")], 9)
    with ThreadPoolExecutor(1) as pool:
        items, got = iter(feed(source, lambda i: i, pool, together=4)), []
        with pytest.raises(Unreadable, match=r"^gone$"):
            got.extend(item.key for item in items)
    assert got == list("01234")


def test_a_budget_that_is_closed_lets_nobody_wait():
    budget = Budget(1)
    budget.take(1)
    threading.Timer(0.05, budget.close).start()
    with pytest.raises(Closed):
        budget.take(1)


def test_what_reading_raises_is_raised_where_it_is_asked_for():
    with ThreadPoolExecutor(1) as pool:
        items = iter(feed(Told([Item("a", text="a"), OSError("gone")]), lambda i: i, pool))
        assert next(items).key == "a"
        with pytest.raises(Unreadable, match=r"^gone$"):
            next(items)
        with pytest.raises(ZeroDivisionError):
            list(feed(Told([ZeroDivisionError()]), lambda item: item, pool))


def test_the_size_is_that_of_the_picture_though_it_is_decoded_smaller(scorer):
    jpeg = encoded(Image.fromarray(scene(200, 330)), "JPEG")
    image = dataclasses.replace(scorer.profile.image, decode="draft")
    profile = dataclasses.replace(scorer.profile, image=image)
    drafting = siglip_jax.Scorer(scorer.model, scorer.params, profile=profile)
    for each in (scorer, drafting):
        item = each.preparer("images", 10**9)(Item("a", jpeg))
        assert (item.width, item.height) == (330, 200)
