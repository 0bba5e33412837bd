"""Training batches: what they hold, and that a resumed stream is the same stream."""

import dataclasses
import itertools
import json
import sys

import numpy as np
import pytest
from pair_files import PROFILE, captions, png, tokenizer, write_parquet

from siglip_jax.data import Augmentation, Batches, open_pairs
from siglip_jax.preprocessing import ImageProfile, decode_image, naflex_patches, preprocess_image

CHANGES = Augmentation(flip=0.5, rotate=20, colour=0.3, background="random")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Eleven."""
    return open_pairs(str(write_parquet(tmp_path_factory.mktemp("pairs") / "a.parquet", 11)))


@pytest.fixture
def make(pairs):
    """Makes `Batches` of the pairs, and closes them."""
    made = []

    def build(data=pairs, profile=PROFILE, **options):
        options = {"batch": 4, "seed": 1, "threads": 0} | options
        made.append(Batches(data, tokenizer(), profile, **options))
        return made[-1]

    yield build
    for batches in made:
        batches.close()


def take(batches, count):
    return list(itertools.islice(batches, count))


def same(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.unreadable == other.unreadable
        for a, b in zip(one[:3], other[:3], strict=True):
            assert np.array_equal(a, b)


def indices(batches, count):
    return np.concatenate([batch.index for batch in take(batches, count)])


def test_a_batch_holds_what_its_indices_say(make):
    texts = set()
    for batch in take(make(), 6):
        assert (batch.image.shape, batch.image.dtype) == ((4, 16, 16, 3), np.uint8)
        assert (batch.text.shape, batch.text.dtype) == ((4, 16), np.int32)
        assert (batch.index.shape, batch.index.dtype) == ((4,), np.int64)
        assert batch.unreadable == ()
        for image, ids, index in zip(batch.image, batch.text, batch.index, strict=True):
            assert np.array_equal(image, preprocess_image(png(index), PROFILE.image))
            possible = tokenizer().encode(list(captions(index)))
            assert (possible == ids).all(1).any()
            texts.add((index, int((possible == ids).all(1).argmax())))
    assert len(texts) > 15  # both captions of most pairs


def test_an_epoch_has_every_pair_once_and_runs_into_the_next(make):
    seen = indices(make(), 11).reshape(4, 11)  # 11 batches of 4 are 4 epochs of 11
    assert (np.sort(seen) == np.arange(11)).all()
    assert len({tuple(epoch) for epoch in seen}) == 4
    assert not np.array_equal(seen[0], np.arange(11))


def test_batches_may_be_larger_than_the_data(make):
    (batch,) = take(make(batch=33), 1)
    assert (np.sort(batch.index.reshape(3, 11)) == np.arange(11)).all()


def test_a_seed_decides(make):
    same(take(make(augmentation=CHANGES), 4), take(make(augmentation=CHANGES), 4))
    assert not np.array_equal(indices(make(), 4), indices(make(seed=2), 4))


def test_changes_are_new_at_every_visit(make):
    batches = take(make(augmentation=CHANGES), 11)
    looks = {}
    for batch in batches:
        for index, image in zip(batch.index, batch.image, strict=True):
            looks.setdefault(index, set()).add(image.tobytes())
    assert min(map(len, looks.values())) == 4
    plain = take(make(augmentation=Augmentation()), 2)
    same(plain, take(make(), 2))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(make, threads):
    expected = take(make(augmentation=CHANGES), 9)
    same(expected, take(make(augmentation=CHANGES, threads=threads), 9))


def test_a_restored_stream_goes_on_at_the_very_batch(make):
    expected = take(make(augmentation=CHANGES), 9)
    for stop in range(9):
        first = make(augmentation=CHANGES, threads=2)
        take(first, stop)
        state = json.loads(json.dumps(first.state()))
        second = make(augmentation=CHANGES, threads=stop % 3)
        take(second, 2)  # wherever it stood before
        second.restore(state)
        assert second.state() == state
        same(expected[stop:], take(second, 9 - stop))


def test_worker_processes_make_the_same_batches_and_resume(make):
    expected = take(make(augmentation=CHANGES), 6)
    first = make(augmentation=CHANGES, workers=2, threads=1)
    same(expected[:3], take(first, 3))
    state = first.state()
    first.close()
    second = make(augmentation=CHANGES, workers=1)
    second.restore(state)
    rest = take(second, 3)
    second.close()
    # Their arrays stay what they are when the workers and their memory are gone.
    same(expected[3:], rest)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_a_batch(make, count):
    whole = take(make(augmentation=CHANGES), 5)
    parts = [
        take(make(augmentation=CHANGES, process_index=p, process_count=count), 5)
        for p in range(count)
    ]
    for step, batch in enumerate(whole):
        for field in range(3):
            rows = np.concatenate([part[step][field] for part in parts])
            assert np.array_equal(rows, batch[field])


def test_a_state_is_for_any_number_of_processes(make):
    one = make()
    take(one, 3)
    half = make(process_index=1, process_count=2)
    half.restore(one.state())
    assert np.array_equal(next(half).index, next(one).index[2:])


def test_without_images_texts_and_indices_are_the_same(make):
    bare = take(make(images=False), 5)
    assert all(batch.image is None for batch in bare)
    for with_, without in zip(take(make(augmentation=CHANGES), 5), bare, strict=True):
        assert np.array_equal(with_.text, without.text)
        assert np.array_equal(with_.index, without.index)


def test_naflex_profiles_give_patches(make):
    image = ImageProfile(decode="fastdct", resize="tf_antialias", res=None, max_patches=9)
    profile = dataclasses.replace(PROFILE, image=image)
    (batch,) = take(make(profile=profile, patch=4), 1)
    assert batch.image.patches.shape == (4, 9, 48)
    for row, index in enumerate(batch.index):
        expected = naflex_patches(decode_image(png(index), image), image, 4)
        for one, stacked in zip(expected, batch.image, strict=True):
            assert np.array_equal(one, stacked[row])
    with pytest.raises(ValueError, match=r"^the profile is for NaFlex: pass patch, the side of"):
        make(profile=profile)
    with pytest.raises(ValueError, match=r"keeps aspect ratios; augmentation cannot be used$"):
        make(profile=profile, patch=4, augmentation=CHANGES)


# Images that cannot be read.


def damaged(folder, count, bad):
    images = [b"not a picture" if n in bad else png(n) for n in range(count)]
    return open_pairs(str(write_parquet(folder / "d.parquet", count, image=images)))


@pytest.mark.parametrize("augmentation", [None, CHANGES])
def test_unreadable_images_are_replaced_and_counted(make, tmp_path, augmentation):
    pairs = damaged(tmp_path, 20, {3, 7})
    options = {"max_error_share": 0.5, "augmentation": augmentation}
    batches = make(pairs, **options)
    seen = take(batches, 10)  # two epochs
    visited = np.concatenate([batch.index for batch in seen])
    assert len(visited) == 40
    assert not {3, 7} & set(visited.tolist())
    assert set(visited.tolist()) == set(range(20)) - {3, 7}
    listed = [entry for batch in seen for entry in batch.unreadable]
    reason = "image bytes: not an image in a known format"
    assert batches.bad == {"d.parquet:3": reason, "d.parquet:7": reason}
    assert len(listed) >= 4
    assert batches.unreadable == batches.state()["unreadable"] == len(listed)
    same(seen, take(make(pairs, threads=2, **options), 10))
    # A run on embeddings, which knows the bad ones, sees the same examples.
    for with_, without in zip(seen, take(make(pairs, images=False, skip={3, 7}), 10), strict=True):
        assert np.array_equal(with_.index, without.index)
        assert np.array_equal(with_.text, without.text)


def test_the_count_of_unreadable_images_is_restored(make, tmp_path):
    pairs = damaged(tmp_path, 20, {3, 7})
    first = make(pairs, max_error_share=0.5)
    take(first, 5)
    second = make(pairs, max_error_share=0.5)
    second.restore(first.state())
    take(first, 5), take(second, 5)
    assert second.state() == first.state()
    assert second.unreadable >= 4


def test_too_many_unreadable_images_are_an_error(make, tmp_path):
    pairs = damaged(tmp_path, 20, {3, 7})
    message = (
        r"^[1-3] of \d+ images \(\d+\.\d%\) cannot be read, more than the share of 0\.05 that may "
        r"be; the first is d\.parquet:[37]: image bytes: not an image in a known format; "
        r"a larger max_error_share allows more$"
    )
    with pytest.raises(ValueError, match=message):
        take(make(pairs, max_error_share=0.05), 10)
    with pytest.raises(ValueError, match=r"^1 of \d+ images .* more than the share of 0 that"):
        take(make(pairs, max_error_share=0, batch=1), 20)


def test_a_bad_start_is_no_bad_share(make, tmp_path):
    # One in twenty-five is within 4%, even where it is among the first.
    batches = make(damaged(tmp_path, 25, {3}), batch=1, max_error_share=0.04)
    take(batches, 25)
    assert batches.unreadable == 1


def test_no_readable_image_at_all(make, tmp_path):
    batches = make(damaged(tmp_path, 5, range(5)), threads=1, max_error_share=1.0)
    message = r"^of 100 images drawn at random none can be read; the last is d\.parquet:\d: image"
    with pytest.raises(ValueError, match=message):
        next(batches)
    batches = make(images=False, skip=range(11))
    with pytest.raises(ValueError, match=r"the last is image \d+: to be skipped$"):
        next(batches)


# States and arguments that cannot be used.


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 2}, r"^cannot resume: the seed differ.*: seed was 2 and is 1 now$"),
        ({"batch": 8}, r"^cannot resume: the batch differ.*: batch was 8 and is 4 now$"),
    ],
)
def test_a_state_of_another_stream(make, other, message):
    with pytest.raises(ValueError, match=message):
        make().restore(make(**other).state())


def test_a_state_of_other_data(make, tmp_path):
    other = open_pairs(str(write_parquet(tmp_path / "b.parquet", 11)))
    message = r"^cannot resume: the data differ.*: pairs was '\w{16}' and is '\w{16}' now$"
    with pytest.raises(ValueError, match=message):
        make().restore(make(other).state())


@pytest.mark.parametrize("state", [None, {}, {"next_index": 3}])
def test_what_is_no_state(make, state):
    with pytest.raises(ValueError, match=r"^not a state of Batches: "):
        make().restore(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, r"^Batches: batch must be an integer of at least 1, got 0$"),
        ({"batch": 4.0}, r"batch must be an integer of at least 1, got 4\.0$"),
        ({"seed": -1}, r"seed must be an integer from 0 to 4294967295, got -1$"),
        ({"workers": -1}, r"workers must be an integer from 0 to 1024, got -1$"),
        ({"process_count": 3}, r"^batch 4 does not divide by 3 processes$"),
        ({"process_index": 1}, r"process_index must be an integer from 0 to 0, got 1$"),
        ({"max_error_share": 2}, r"^max_error_share must be a share from 0 to 1, got 2$"),
    ],
)
def test_bad_arguments(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_grain_missing(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ValueError, match=r'^grain is not installed.*pip install "grain'):
        make()
