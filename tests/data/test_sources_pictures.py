"""Pictures of a bulk job: folders, patterns, lists, and what is wrong with them."""

import io
import pickle
import sys
from types import SimpleNamespace

import pytest
from job_inputs import items
from pair_files import png

from siglip_jax.cli.image_files import SUFFIXES
from siglip_jax.jobs.sources import Source, TextStrings, open_source
from siglip_jax.jobs.sources.specs import PICTURES


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("b.png", "a.PNG", "sub/a.PNG", "sub/c.jpg", "notes.txt")):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes(png(number))
    return tmp_path / "p"


def test_a_folder(folder):
    source = open_source([str(folder)], shard_size=3)
    assert isinstance(source, Source)
    assert [(shard.name, shard.items) for shard in source.shards()] == [
        ("pictures 1 to 3", 3),
        ("pictures 4 to 4", 1),
    ]
    names = ["a.PNG", "b.png", "sub/a.PNG", "sub/c.jpg"]
    assert [(item.key, item.image) for item in items(source)] == [
        (name, str(folder / name)) for name in names
    ]
    copy = pickle.loads(pickle.dumps(source))
    assert items(copy) == items(source)
    assert [item.key for item in source.read(0, keys={"sub/a.PNG"})] == ["sub/a.PNG"]


def test_who_moves_the_folder_keeps_its_identity_and_who_changes_it_does_not(folder, tmp_path):
    identity = open_source([str(folder)]).identity()
    moved = folder.rename(tmp_path / "moved")
    assert open_source([str(moved)]).identity() == identity
    assert open_source([str(moved)], shard_size=2).identity() != identity
    (moved / "b.png").write_bytes(b"longer" * 1000)
    assert open_source([str(moved)]).identity() != identity


def test_patterns_and_several_of_them(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    keys = [item.key for item in items(open_source(["p/**/*.PNG"]))]
    assert keys == ["a.PNG", "sub/a.PNG"]
    keys = [item.key for item in items(open_source(["p/*.PNG", "p/sub", "p/sub/c.jpg"]))]
    assert keys == ["p/a.PNG", "p/sub/a.PNG", "p/sub/c.jpg", "p/sub/c.jpg#2"]
    keys = [item.key for item in items(open_source(["p/{sub/a,a}.PNG"]))]
    assert keys == ["sub/a.PNG", "a.PNG"]


def test_a_name_with_wildcards_of_its_own(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "x[1]{2}.png").write_bytes(png(0))
    assert [item.image for item in items(open_source(["x[1]{2}.png"]))] == ["x[1]{2}.png"]


def test_lists(folder, monkeypatch):
    monkeypatch.chdir(folder)
    lines = "\ufeffb.png\r\n\nsub/c.jpg\nmissing.jpg\nb.png\n"
    (folder / "list.txt").write_text(lines, newline="")
    found = [item.key for item in items(open_source(["list.txt"]))]
    assert found == ["b.png", "sub/c.jpg", "missing.jpg", "b.png#2"]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines.encode())))
    assert [item.key for item in items(open_source(["-"]))] == found


def test_strings():
    source = TextStrings(["a dog", "a cat", "a dog"], shard_size=2)
    assert isinstance(source, Source)
    assert items(source) == [
        ("a dog", None, "a dog", None),
        ("a cat", None, "a cat", None),
        ("a dog#2", None, "a dog", None),
    ]
    assert source.identity() != TextStrings(["a dog"], shard_size=2).identity()


def test_one_list_of_what_is_a_picture():
    assert PICTURES == SUFFIXES


@pytest.mark.parametrize(
    ("specs", "options", "message"),
    [
        ([], {}, r"there is no input; name a folder"),
        (["p"], {"shard_size": 0}, "shard_size must be at least 1, got 0"),
        (["p"], {"only": "videos"}, "only must be 'images', 'texts' or None, got 'videos'"),
        (["p"], {"only": "texts"}, "p: pictures have no texts; texts:FILE is a text a line"),
        (["texts:p/notes.txt"], {"only": "images"}, "p/notes.txt: texts have no pictures"),
        (["p"], {"key": "id"}, "p: key= names a column, and pictures have none"),
        (["p/bb.png"], {}, r"p/bb.png: no such file or folder; did you mean p/b.png\?$"),
        (["q/b.png"], {}, "q/b.png: no such file or folder; there is no folder q$"),
        (["p/*.tar"], {}, "p/[*].tar: no file matches this pattern"),
        (["empty"], {}, "empty: no pictures, .tar or .parquet in it; the folder is empty"),
        (["other"], {}, "other: no pictures, .tar or .parquet in it; none of the 2 files is one"),
        (["mixed"], {}, "mixed: 1 pictures and 2 tars are in it; name those that you mean"),
        (["a.tar.zst"], {}, "a.tar.zst: not of a known kind; expected pictures, .tar, .parquet"),
        (["bad.txt"], {}, "bad.txt: 'a dog' is no file, nor are those after it; .*texts:bad.txt"),
        (["latin.txt"], {}, "latin.txt: not UTF-8 text"),
        (["blank.txt"], {}, "blank.txt: expected one picture a line, got none"),
        (["mixed/a.tar", "mixed/a.tar"], {}, "mixed/a.tar is named twice"),
    ],
)
def test_bad_input(folder, tmp_path, monkeypatch, specs, options, message):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "other", "mixed"):
        (tmp_path / name).mkdir()
    for name in ("other/x.md", "other/y.txt", "mixed/a.tar", "mixed/b.tar", "mixed/c.jpg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.tar.zst").write_bytes(b"")
    (tmp_path / "bad.txt").write_text("a dog\na cat\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9.jpg\n")
    (tmp_path / "blank.txt").write_bytes(b"\n \n")
    with pytest.raises(ValueError, match=message) as caught:
        open_source(specs, **options)
    assert "\n" not in str(caught.value)
