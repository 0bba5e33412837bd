"""Image files: folders, patterns, lists, captions beside them, and what is wrong with them."""

import io
import pickle
import sys
from types import SimpleNamespace

import pytest
from job_inputs import items
from pair_files import captions, png

from siglip_jax.data import Source, TextStrings, captions_of, open_items, open_pairs

# What is left out of a folder is a warning; the tests that are of it see it.
pytestmark = pytest.mark.filterwarnings("ignore:.*what is no image is left out")


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("b.png", "a.PNG", "sub/a.PNG", "sub/c.jpg", "notes.txt")):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes(png(number))
    return tmp_path / "p"


def test_a_folder(folder):
    with pytest.warns(UserWarning, match=r"p: what is no image is left out: 1 \.txt$"):
        source = open_items([str(folder)], shard_size=3)
    assert isinstance(source, Source)
    assert [(shard.name, shard.items) for shard in source.shards()] == [
        ("images 1 to 3", 3),
        ("images 4 to 4", 1),
    ]
    names = ["a.PNG", "b.png", "sub/a.PNG", "sub/c.jpg"]
    assert [(item.key, item.image) for item in items(source)] == [
        (name, str(folder / name)) for name in names
    ]
    copy = pickle.loads(pickle.dumps(source))
    assert items(copy) == items(source)
    assert [item.key for item in source.read(0, keys={"sub/a.PNG"})] == ["sub/a.PNG"]


def test_who_moves_the_folder_keeps_its_identity_and_who_changes_it_does_not(folder, tmp_path):
    identity = open_items([str(folder)]).identity()
    moved = folder.rename(tmp_path / "moved")
    assert open_items([str(moved)]).identity() == identity
    assert open_items([str(moved)], shard_size=2).identity() != identity
    (moved / "b.png").write_bytes(b"longer" * 1000)
    assert open_items([str(moved)]).identity() != identity


def test_patterns_and_several_of_them(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    keys = [item.key for item in items(open_items(["p/**/*.PNG"]))]
    assert keys == ["a.PNG", "sub/a.PNG"]
    keys = [item.key for item in items(open_items(["p/*.PNG", "p/sub", "p/sub/c.jpg"]))]
    assert keys == ["p/a.PNG", "p/sub/a.PNG", "p/sub/c.jpg", "p/sub/c.jpg#2"]
    keys = [item.key for item in items(open_items(["p/{sub/a,a}.PNG"]))]
    assert keys == ["sub/a.PNG", "a.PNG"]


def test_a_name_with_wildcards_of_its_own(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "x[1]{2}.png").write_bytes(png(0))
    assert [item.image for item in items(open_items(["x[1]{2}.png"]))] == ["x[1]{2}.png"]


def test_lists(folder, monkeypatch):
    monkeypatch.chdir(folder)
    lines = "\ufeffb.png\r\n\nsub/c.jpg\nmissing.jpg\nb.png\n"
    (folder / "list.txt").write_text(lines, newline="")
    found = [item.key for item in items(open_items(["list.txt"]))]
    assert found == ["b.png", "sub/c.jpg", "missing.jpg", "b.png#2"]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines.encode())))
    assert [item.key for item in items(open_items(["-"]))] == found


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


def test_items_have_the_texts_beside_them_unless_only_images_are_wanted(tmp_path):
    put(tmp_path, a="ein Hund\nzwei", b=None, c="ein Fisch", d="x")
    (tmp_path / "b.json").write_text('{"text": "eine Katze", "alt": "müde"}')
    (tmp_path / "c.json").write_text('{"alt": ["Fisch", "Aal"]}')
    (tmp_path / "d.txt").write_bytes(b"caf\xe9")
    source = open_items([str(tmp_path)])
    found = items(source)
    assert [item.text for item in found] == ["ein Hund", "eine Katze", "ein Fisch", None]
    assert found[3].error.startswith("d.png: its text cannot be read: 'utf-8' codec can't")
    assert found[0].image == str(tmp_path / "a.png")
    named = items(open_items([str(tmp_path)], text_column="alt"))
    assert [item.text for item in named] == [None, "müde", "Fisch", None]
    images = open_items([str(tmp_path)], only="images")
    assert items(images) == [(f"{n}.png", str(tmp_path / f"{n}.png"), None, None) for n in "abcd"]
    assert images.identity() != source.identity()
    with pytest.raises(ValueError, match=r"^d\.png: its text cannot be read: 'utf-8' codec"):
        open_pairs(str(tmp_path))
    (tmp_path / "d.txt").write_bytes(b"fish")
    pairs = open_pairs(str(tmp_path / "[bcd].*g"))
    assert captions_of(pairs) == [("eine Katze",), ("ein Fisch",), ("fish",)]


def test_images_without_a_caption_are_counted(tmp_path):
    put(tmp_path, a="x", b=None, c=" \n")
    message = r": 2 of 3 pairs have no caption: b\.png, c\.png; add what is missing or leave"
    with pytest.raises(ValueError, match=message):
        open_pairs(str(tmp_path))


def test_an_image_that_vanished(tmp_path):
    put(tmp_path, a="x")
    pairs = open_pairs(str(tmp_path))
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a\.png: no such file or folder$"):
        pairs[0]
    assert pairs.identity()


def test_a_list_of_images_with_captions(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "list.txt").write_text("b.png\nsub/c.jpg\n")
    (folder / "b.txt").write_text("a dog\n")
    (folder / "sub" / "c.json").write_text('{"captions": ["a cat", "two"]}')
    pairs = open_pairs("list.txt")
    assert [pairs[n] for n in range(2)] == [
        ("b.png", png(0), ("a dog",)),
        ("sub/c.jpg", png(3), ("a cat", "two")),
    ]


def test_strings():
    source = TextStrings(["a dog", "a cat", "a dog"], shard_size=2)
    assert isinstance(source, Source)
    assert items(source) == [
        ("a dog", None, "a dog", None),
        ("a cat", None, "a cat", None),
        ("a dog#2", None, "a dog", None),
    ]
    assert source.identity() != TextStrings(["a dog"], shard_size=2).identity()


@pytest.mark.parametrize(
    ("specs", "options", "message"),
    [
        ([], {}, r"there is no input; name a folder"),
        (["p"], {"shard_size": 0}, "shard_size must be at least 1, got 0"),
        (
            ["p"],
            {"only": "videos"},
            "only must be .*'pairs' or None, got 'videos'",
        ),
        (["p"], {"only": "texts"}, "p: images have no texts; texts:FILE is a text a line"),
        (["texts:p/notes.txt"], {"only": "images"}, "p/notes.txt: texts have no images"),
        (["p"], {"key_column": "id"}, "p: images have no column of keys; leave out key_column"),
        (["p/bb.png"], {}, r"p/bb.png: no such file or folder; did you mean p/b.png\?$"),
        (["q/b.png"], {}, "q/b.png: no such file or folder; there is no folder q$"),
        (["p/*.tar"], {}, "p/[*].tar: no file matches this pattern"),
        (["empty"], {}, "empty: no images, .tar, .parquet or .arrow in it; the folder is empty"),
        (
            ["other"],
            {},
            "other: no images, .tar, .parquet or .arrow in it; none of the 2 files is one",
        ),
        (["mixed"], {}, "mixed: 1 image and 2 tars are in it; name those that you mean"),
        (["s-{0..1}.tar"], {}, r"s-0.tar: no such file or folder$"),
        (["a.tar.zst"], {}, "a.tar.zst: not of a known kind; expected images, .tar, .parquet"),
        (["bad.txt"], {}, "bad.txt: 'a dog' is no file, nor are those after it; .*texts:bad.txt"),
        (["latin.txt"], {}, "latin.txt: not UTF-8 text"),
        (["blank.txt"], {}, "blank.txt: expected one image a line, got none"),
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
        open_items(specs, **options)
    assert "\n" not in str(caught.value)
    if len(specs) == 1 and not options:
        with pytest.raises(ValueError, match=message):
            open_pairs(*specs)


def test_the_content_decides_and_what_is_left_out_is_counted(tmp_path):
    for name, data in {
        "a.HEIC": b"\0\0\0\x18ftypheic" + bytes(20),
        "b": png(1),
        "c.weird": png(2),
        "d.mov": b"a film",
        "e.dng": b"a negative",
        "f.JPG": png(3),
        "f.txt": b"beside an image",
        "._f.JPG": b"\0\5\x16\7" + bytes(200),
        ".Trashes/g.jpg": png(4),
        "sub/.hidden/h.jpg": png(5),
        "Thumbs.db": b"?",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    expected = "what is no image is left out: 1 .db, 1 .mov, 1 .dng, 3 hidden"
    with pytest.warns(UserWarning) as told:
        found = items(open_items([str(tmp_path)], only="images"))
    assert [item.key for item in found] == ["a.HEIC", "b", "c.weird", "f.JPG"]
    said = str(told[0].message).partition(": ")[2]
    assert sorted(said.split(": ")[1].split(", ")) == sorted(expected.split(": ")[1].split(", "))


def test_a_folder_of_nothing_to_read_says_what_is_there(tmp_path):
    for name in ("a.dng", "b.dng", "._a.jpg"):
        (tmp_path / name).write_bytes(b"?")
    kinds = r"no images, \.tar, \.parquet or \.arrow in it"
    message = kinds + r"; none of the 3 files is one \(2 \.dng, 1 hidden\)$"
    with pytest.raises(ValueError, match=message):
        open_items([str(tmp_path)])
