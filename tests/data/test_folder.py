"""Pairs from folders of pictures, and which format a path means."""

import json
import pickle

import pytest
from pair_files import captions, png, write_parquet, write_tar

from siglip_jax.data import captions_of, open_pairs


def put(folder, **texts):
    """Pictures 0, 1, ... called by `texts`; each with a .txt unless its text is None."""
    for number, (name, text) in enumerate(texts.items()):
        file = folder / f"{name.replace('__', '/')}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(png(number))
        if text is not None:
            file.with_suffix(".txt").write_text(text)


def test_a_text_beside_every_picture(tmp_path):
    put(tmp_path, b="\n".join(captions(0)), a="ein Hund \n\n", c__a="une chatte")
    (tmp_path / "notes.md").write_text("not a picture")
    pairs = open_pairs(str(tmp_path))
    assert [pairs[n] for n in range(len(pairs))] == [
        ("a.png", png(1), ("ein Hund",)),
        ("b.png", png(0), captions(0)),
        ("c/a.png", png(2), ("une chatte",)),
    ]
    copy = pickle.loads(pickle.dumps(pairs))
    assert copy[2] == pairs[2]
    before = pairs.identity()
    assert copy.identity() == before
    (tmp_path / "a.txt").write_text("ein Kater ist es")
    relabelled = open_pairs(str(tmp_path)).identity()
    put(tmp_path, d="more")
    assert len({before, relabelled, open_pairs(str(tmp_path)).identity()}) == 3


TABLES = {
    "captions.csv": 'file_name,caption\na.png,"a dog, running"\nb.png,a cat\na.png,two\n',
    "captions.tsv": "image\ttext\na.png\ta dog, running\nb.png\ta cat\na.png\ttwo\n",
    "metadata.csv": '\ufefffile_name,text,id\r\na.png,"a dog, running",1\r\n'
    "b.png,a cat,2\r\na.png,two,3\r\n",
    "captions.jsonl": '{"file_name": "a.png", "captions": ["a dog, running", "two"]}\n\n'
    '{"file_name": "b.png", "captions": "a cat"}\n',
    "metadata.jsonl": '{"file_name": "a.png", "caption": "a dog, running"}\n'
    '{"file_name": "b.png", "caption": "a cat"}\n{"file_name": "a.png", "caption": "two"}\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_captions(tmp_path, name):
    put(tmp_path, a=None, b=None, unnamed=None)
    (tmp_path / name).write_text(TABLES[name])
    pairs = open_pairs(str(tmp_path))
    assert [pairs[n] for n in range(len(pairs))] == [
        ("a.png", png(0), ("a dog, running", "two")),
        ("b.png", png(1), ("a cat",)),
    ]


def test_columns_of_a_table_can_be_named(tmp_path):
    put(tmp_path, a=None)
    (tmp_path / "captions.csv").write_text("photo,title,caption\na.png,A,B\n")
    assert captions_of(open_pairs(str(tmp_path), image="photo", caption="title")) == [("A",)]


def test_quotation_marks_in_tabs_are_just_that(tmp_path):
    put(tmp_path, a=None, b=None)
    (tmp_path / "captions.tsv").write_text('file_name\tcaption\na.png\t"so\nb.png\tb\n')
    assert captions_of(open_pairs(str(tmp_path))) == [('"so',), ("b",)]


BAD_TABLES = {
    "a wrong column": (
        "captions.csv",
        "file,captoin\na.png,x\n",
        r"captions\.csv: no column file_name or image; the columns are file, captoin; "
        r"did you mean image='file'\?$",
    ),
    "no caption column": (
        "captions.csv",
        "image,captoin\na.png,x\n",
        r"no column caption or captions or text; .*; did you mean caption='captoin'\?$",
    ),
    "a picture that is not there": (
        "captions.csv",
        "image,caption\na.png,x\nz.png,y\n",
        r"captions\.csv: 1 of 2 pairs have no file: z\.png; ",
    ),
    "an empty caption": (
        "captions.csv",
        "image,caption\na.png,\n",
        r"captions\.csv: 1 of 1 pairs have no caption: a\.png; ",
    ),
    "no file name": (
        "captions.jsonl",
        '{"image": "a.png", "caption": "x"}\n{"caption": "x"}\n',
        r"captions\.jsonl: row 2: no file name in column image$",
    ),
    "not JSON": ("captions.jsonl", '{"image": "a.png"}\n{\n', r"captions\.jsonl: line 2: not JSON"),
    "not an object": ("captions.jsonl", "[1]\n", r"line 1: expected an object, got '\[1\]'$"),
    "no rows": ("captions.csv", "image,caption\n", r"captions\.csv: there are no rows in it$"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables(tmp_path, case):
    name, text, message = BAD_TABLES[case]
    put(tmp_path, a=None)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        open_pairs(str(tmp_path))


def test_a_table_in_another_encoding(tmp_path):
    put(tmp_path, a=None)
    (tmp_path / "captions.csv").write_bytes("image,caption\na.png,café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"captions\.csv: cannot be read: 'utf-8' codec"):
        open_pairs(str(tmp_path))


def test_pictures_without_a_caption_are_counted(tmp_path):
    put(tmp_path, a="x", b=None, c=" \n")
    message = r": 2 of 3 pairs have no caption: b\.png, c\.png; add what is missing or leave"
    with pytest.raises(ValueError, match=message):
        open_pairs(str(tmp_path))


def test_a_picture_that_vanished(tmp_path):
    put(tmp_path, a="x")
    pairs = open_pairs(str(tmp_path))
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a\.png: cannot be read: No such file or directory$"):
        pairs[0]
    assert pairs.identity()


def test_paths_that_mean_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no \.tar, \.parquet or pictures \(\.jpeg, \.jpg"):
        open_pairs(str(tmp_path / "empty"))
    write_tar(tmp_path / "shard-0000.tar", [("a.png", png(0)), ("a.txt", b"x")])
    with pytest.raises(
        ValueError, match=r"shard-000\.tar: no such file or folder; did you mean .*shard-0000\.tar"
    ):
        open_pairs(str(tmp_path / "shard-000.tar"))
    with pytest.raises(ValueError, match=r"shard-0001\.tar: no such file or folder; did you mean"):
        open_pairs(str(tmp_path / "shard-{0000..0001}.tar"))
    with pytest.raises(ValueError, match=r"no such file or folder; there is no folder .*nowhere$"):
        open_pairs(str(tmp_path / "nowhere" / "a.tar"))
    with pytest.raises(ValueError, match=r"x-\*\.tar: no file matches this pattern$"):
        open_pairs(str(tmp_path / "x-*.tar"))
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.tar\.gz: a compressed tar has no random access; "):
        open_pairs(str(tmp_path / "a.tar.gz"))
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.xlsx: not a dataset of a known format; expected "):
        open_pairs(str(tmp_path / "a.xlsx"))
    write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r": both \.tar and \.parquet files; name those that you"):
        open_pairs(str(tmp_path))


def test_a_caption_may_hold_a_line_separator(tmp_path):
    put(tmp_path, a=None)
    (tmp_path / "metadata.csv").write_text("image,text\na.png,a\u2028b\n")
    assert captions_of(open_pairs(str(tmp_path))) == [("a\u2028b",)]
    row = json.dumps({"file_name": "a.png", "caption": "a\u2028b"}, ensure_ascii=False)
    (tmp_path / "captions.jsonl").write_text(row)
    assert captions_of(open_pairs(str(tmp_path))) == [("a\u2028b",)]
