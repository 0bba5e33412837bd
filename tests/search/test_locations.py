"""Where items lie, by their keys and what jobs were given."""

import re

import pytest

from siglip_jax.search import Location, location
from siglip_jax.search.sheet import Shown, write_sheet


@pytest.fixture
def origin(tmp_path, monkeypatch):
    """Of a job that ran in a folder where some files are, seen from another."""
    for name in ("photos/sub/a b.jpg", "photos/c.jpg", "photos/x.tar", "photos/t.csv", "c.jpg"):
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    return lambda *specs: {"specs": list(specs), "folder": str(tmp_path / "work")}


@pytest.mark.parametrize(
    ("key", "specs", "found"),
    [
        ("sub/a b.jpg", ["photos"], ("photos/sub/a b.jpg",)),
        ("sub/a b.jpg#2", ["photos/"], ("photos/sub/a b.jpg",)),
        ("c.jpg", ["photos/*.jpg"], ("photos/c.jpg",)),
        ("c.jpg", ["list.txt"], ("c.jpg",)),
        ("photos/c.jpg", ["photos/c.jpg", "c.jpg"], ("photos/c.jpg",)),
        ("x.tar/000/1", ["photos/x.tar"], ("photos/x.tar", "000/1")),
        ("x.tar/1", ["photos"], ("photos/x.tar", "1")),
        ("t.csv:7", ["photos/t.csv"], ("photos/t.csv", None, 7)),
        ("sub/a b.jpg", ["photos/t.csv"], ("photos/sub/a b.jpg",)),
        ("gone.jpg", ["photos"], None),
        ("id7", ["photos/t.csv"], None),
    ],
)
def test_local(origin, tmp_path, key, specs, found):
    expected = found and Location(str(tmp_path / "work" / found[0]), *found[1:])
    assert location(key, origin(*specs)) == expected


@pytest.mark.parametrize(
    ("key", "specs", "found"),
    [
        ("a/b.jpg", ["gs://b/photos"], Location("gs://b/photos/a/b.jpg")),
        ("x-0.tar/1", ["s3://b/x-{0..3}.tar"], Location("s3://b/x-0.tar", "1")),
        ("gs://b/x.tar/1", ["gs://b/x.tar", "gs://b/y.tar"], Location("gs://b/x.tar", "1")),
        ("s.parquet:2", ["hf://d/*.parquet"], Location("hf://d/s.parquet", None, 2)),
        ("https://h/a.jpg", ["list.txt"], Location("https://h/a.jpg")),
        ("id7", ["gs://b/t.csv"], None),
    ],
)
def test_remote(origin, key, specs, found):
    assert location(key, origin(*specs)) == found


def test_without_an_origin(origin):
    assert location("c.jpg", None) is None


def test_links_of_a_page(origin, tmp_path):
    (tmp_path / "work" / "pages").mkdir()
    files = [
        str(tmp_path / "work" / "photos" / "sub" / "a b.jpg"),
        "https://h/a.jpg?x=1&y=2",
        "javascript://h/%0aalert(1)",
        None,
    ]
    shown = [Shown(f"{n}.jpg", "0.5", file=file) for n, file in enumerate(files)]
    for folder, first in ((".", "photos/sub/a%20b.jpg"), ("pages", "file://" + files[0])):
        write_sheet(tmp_path / "work" / folder / "s.html", [("q", shown)])
        page = (tmp_path / "work" / folder / "s.html").read_text()
        links = re.findall(r'<a href="([^"]+)">', page)
        assert links[::2] == links[1::2]  # the image, and its key
        assert links[::2] == [first.replace("a b", "a%20b"), "https://h/a.jpg?x=1&amp;y=2"]
