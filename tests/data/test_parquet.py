"""Pairs from Parquet files."""

import pickle

import pyarrow
import pytest
from pair_files import captions, png, write_parquet

from siglip_jax.data import Pairs, captions_of, open_pairs, parquet


def test_rows_are_pairs_across_row_groups_and_files(tmp_path):
    write_parquet(tmp_path / "b-0.parquet", 7)
    write_parquet(tmp_path / "b-1.parquet", 4)
    for source in ("", "b-*.parquet", "b-{0..1}.parquet", "b-{0,1}.parquet"):
        pairs = open_pairs(str(tmp_path / source))
        assert isinstance(pairs, Pairs)
        assert len(pairs) == 11
        # Backwards, so that row groups are not read in order.
        for index in reversed(range(11)):
            number = index if index < 7 else index - 7
            file = f"b-{index // 7}.parquet:{number}"
            assert pairs[index] == (file, png(number), captions(number))
    assert captions_of(pairs) == [captions(n) for n in [*range(7), *range(4)]]


@pytest.mark.parametrize("texts", ["caption", "text"])
def test_one_caption_a_row_and_a_key(tmp_path, texts):
    columns = {"captions": None, texts: [f" {n} dogs\n" for n in range(7)]}
    file = write_parquet(tmp_path / "a.parquet", key=[f"k{n}" for n in range(7)], **columns)
    assert open_pairs(str(file))[5] == ("k5", png(5), ("5 dogs",))


def test_captions_may_be_a_dictionary_of_strings(tmp_path):
    column = pyarrow.array(["a dog", "a cat", "a dog"]).dictionary_encode()
    file = write_parquet(tmp_path / "a.parquet", 3, captions=None, caption=column)
    assert captions_of(open_pairs(str(file))) == [("a dog",), ("a cat",), ("a dog",)]


def test_images_as_hugging_face_stores_them_and_as_paths(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "1.png").write_bytes(png(1))
    structs = [{"bytes": png(0), "path": "x.png"}, {"bytes": None, "path": "inside/1.png"}]
    a = write_parquet(tmp_path / "a.parquet", 2, image=structs)
    b = write_parquet(tmp_path / "b.parquet", 2, image=["inside/1.png", "none.png"])
    assert [open_pairs(str(a))[n].image for n in (0, 1)] == [png(0), png(1)]
    assert open_pairs(str(b))[0].image == png(1)
    with pytest.raises(ValueError, match=r"none\.png: cannot be read: No such file"):
        open_pairs(str(b))[1]


def test_columns_can_be_named(tmp_path):
    columns = {"image": None, "captions": None, "photo": [png(0)], "title": ["a dog"]}
    file = write_parquet(tmp_path / "a.parquet", 1, **columns)
    pairs = open_pairs(str(file), image="photo", caption="title")
    assert pairs[0] == ("a.parquet:0", png(0), ("a dog",))


def test_a_null_image_is_one_that_cannot_be_read(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", 2, image=[png(0), None])
    with pytest.raises(ValueError, match=r"^a\.parquet:1: no image$"):
        open_pairs(str(file))[1]


def test_a_copy_in_another_process_reads_the_same(tmp_path):
    pairs = open_pairs(str(write_parquet(tmp_path / "a.parquet")))
    before = pairs[4]
    copy = pickle.loads(pickle.dumps(pairs))
    assert copy[4] == before
    assert copy.identity() == pairs.identity()


def test_row_groups_used_last_are_kept_and_others_dropped(tmp_path, monkeypatch):
    pairs = open_pairs(str(write_parquet(tmp_path / "a.parquet", 9, rows=3)))
    opened = []
    real = parquet._opened
    monkeypatch.setattr(parquet, "_opened", lambda *a: opened.append(1) or real(*a))
    assert [pairs[n].image for n in (0, 1, 4, 2, 5)] == [png(n) for n in (0, 1, 4, 2, 5)]
    assert len(opened) == 2
    monkeypatch.setattr(parquet, "_CACHE_BYTES", 1)
    assert [pairs[n].image for n in (8, 6, 0)] == [png(n) for n in (8, 6, 0)]
    assert len(opened) == 4
    assert pairs[1].image == png(1)  # the last group is kept, however large
    assert len(opened) == 4


def test_identity_is_of_the_data_not_of_the_folder(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    a = open_pairs(str(write_parquet(tmp_path / "x" / "a.parquet", 5)))
    same = open_pairs(str(write_parquet(tmp_path / "y" / "a.parquet", 5)))
    assert a.identity() == same.identity()
    more = open_pairs(str(write_parquet(tmp_path / "y" / "a.parquet", 6)))
    renamed = open_pairs(str(write_parquet(tmp_path / "y" / "b.parquet", 5)))
    assert len({a.identity(), more.identity(), renamed.identity()}) == 3


BAD = {
    "no such image column": (
        {"image": None, "images": [png(0)]},
        {},
        r"a\.parquet: no column image; the columns are captions, images; "
        r"did you mean image='images'\?$",
    ),
    "no such caption column": (
        {"captions": None, "words": ["a"]},
        {},
        r"no column caption or captions or text; the columns are image, words; "
        r"name it with caption=$",
    ),
    "a wrong name": (
        {},
        {"caption": "caption"},
        r"no column caption; .*; did you mean caption='captions'\?$",
    ),
    "images of numbers": (
        {"image": [3]},
        {},
        r"a\.parquet: column image holds int64; expected the bytes of image files, "
        r"a struct of bytes and path, or paths$",
    ),
    "captions of numbers": (
        {"captions": [[1, 2]]},
        {},
        r"column captions holds list<\w+: int64>; expected a string or a list of strings$",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_columns(tmp_path, case):
    columns, names, message = BAD[case]
    file = write_parquet(tmp_path / "a.parquet", 1, **columns)
    with pytest.raises(ValueError, match=message):
        open_pairs(str(file), **names)


def test_missing_captions_are_counted(tmp_path):
    texts = [["a"], [], None, ["", " "], ["b"], [], ["c"]]
    file = write_parquet(tmp_path / "a.parquet", captions=texts)
    message = (
        r"a\.parquet: 4 of 7 pairs have no caption: a\.parquet:1, a\.parquet:2, a\.parquet:3, "
        r"\.\.\.; add what is missing or leave these out$"
    )
    with pytest.raises(ValueError, match=message):
        open_pairs(str(file))


def test_files_that_are_no_parquet_or_hold_nothing(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match=r"bad\.parquet: not a Parquet file that can be read: "):
        open_pairs(str(tmp_path / "bad.parquet"))
    columns = {"image": pyarrow.array([], "binary"), "captions": pyarrow.array([], "string")}
    write_parquet(tmp_path / "empty.parquet", 0, **columns)
    with pytest.raises(ValueError, match=r"empty\.parquet: there are no rows in it$"):
        open_pairs(str(tmp_path / "empty.parquet"))


def test_pyarrow_missing(tmp_path, monkeypatch):
    file = write_parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    message = r"pyarrow is not installed.*pip install 'siglip-jax\[train\]'$"
    with pytest.raises(ValueError, match=message):
        open_pairs(str(file))
