"""CSV, TSV, JSONL and text files as the source of a bulk job."""

import csv
import json
import pickle

import pytest
from job_inputs import items

from siglip_jax.jobs.sources import open_source

ROWS = [
    ("a.jpg", 'a "dog", brown\nand small'),
    ("sub/b.jpg", "eine Katze → müde"),
    ("a.jpg", "a dog"),
    ("/x/c.jpg", ""),
    ("", "nothing to see"),
]


def write(path, rows=ROWS, names=("file_name", "caption")):
    if path.suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(dict(zip(names, row))) for row in rows))  # noqa: B905
        return path
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        tabs = path.suffix == ".tsv"
        style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None} if tabs else {}
        lines = csv.writer(file, **style)
        lines.writerow(names)
        lines.writerows([[str(v).replace("\n", " ") for v in row] if tabs else row for row in rows])
    return path


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_pictures_with_texts(tmp_path, ending, size):
    source = open_source([str(write(tmp_path / f"t.{ending}"))], shard_size=size)
    assert [s.items for s in source.shards()] == [
        *[size] * (5 // size),
        *[5 % size] * (5 % size > 0),
    ]
    text = ROWS[0][1].replace("\n", " ") if ending == "tsv" else ROWS[0][1]
    error = f"t.{ending}:4: no picture in column file_name"
    expected = [
        ("a.jpg", str(tmp_path / "a.jpg"), text, None),
        ("sub/b.jpg", str(tmp_path / "sub/b.jpg"), ROWS[1][1], None),
        ("a.jpg#2", str(tmp_path / "a.jpg"), "a dog", None),
        ("/x/c.jpg", "/x/c.jpg", None, None),
        (f"t.{ending}:4", None, None, error),
    ]
    assert items(source) == expected
    copy = pickle.loads(pickle.dumps(source))
    assert items(copy) == expected
    assert copy.identity() == source.identity()


def test_texts_and_keys(tmp_path):
    path = write(tmp_path / "t.csv", [("7", "a dog"), ("9", ""), ("7", "a cat")], ("id", "text"))
    assert [(item.key, item.text) for item in items(open_source([str(path)]))] == [
        ("t.csv:0", "a dog"),
        ("t.csv:1", None),
        ("t.csv:2", "a cat"),
    ]
    found = items(open_source([str(path)], key="id"))
    assert [(item.key, item.error) for item in found] == [
        ("7", None),
        ("9", "9: no text in column text"),
        ("7#2", None),
    ]


def test_several_texts_of_a_row(tmp_path):
    path = write(tmp_path / "t.jsonl", [("a.jpg", ["a dog", "a cat"])], ("image", "captions"))
    assert [item.text for item in items(open_source([str(path)]))] == ["a dog"]
    source = open_source([str(path)], only="texts")
    assert [(item.key, item.text) for item in items(source)] == [
        ("t.jsonl:0", "a dog"),
        ("t.jsonl:0/2", "a cat"),
    ]
    assert [shard.items for shard in source.shards()] == [None]


def test_lines_of_text(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("\ufeffa dog\r\n\n  ein Hund → müde \na dog\nlast", newline="")
    source = open_source([f"texts:{path}"], shard_size=2)
    assert [shard.items for shard in source.shards()] == [2, 2]
    assert items(source) == [
        (f"t.txt:{n}", None, text, None)
        for n, text in enumerate(["a dog", "ein Hund → müde", "a dog", "last"])
    ]


def test_several_sources_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv"), write(tmp_path / "b.jsonl")
    (tmp_path / "x.jpg").write_bytes(b"x")
    source = open_source(["a.csv", "x.jpg", "b.jsonl"])
    assert [shard.name for shard in source.shards()] == [
        "a.csv from row 0",
        "pictures 1 to 1",
        "b.jsonl from row 0",
    ]
    assert items(source)[5:7] == [("x.jpg", "x.jpg", None, None), items(source)[6]]
    assert source.identity() != open_source(["x.jpg", "a.csv", "b.jsonl"]).identity()
    copy = pickle.loads(pickle.dumps(source))
    assert [item.key for item in copy.read(1, {"x.jpg"})] == ["x.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("t.csv", b"name,title\na.jpg,x\n", {}, "no column image or img or .*columns are name, t"),
        ("t.csv", b"file_name,caption\na.jpg,x\n", {"text": "captoin"}, "did you mean text='capt"),
        ("t.csv", b"file_name,caption\n", {}, "there are no rows in it"),
        ("t.csv", b"", {}, "there are no rows in it"),
        ("t.csv", b"image\ncaf\xe9\n", {}, "not UTF-8 text at byte 6"),
        ("t.csv", b'image\n"' + b"x" * 200_000, {}, "not a table, near byte .*: field larger"),
        ("t.jsonl", b'{"image": "a.jpg"}\n{"image":\n', {}, "the line before byte 29 is not JSON"),
        ("t.jsonl", b"[1, 2]\n", {}, r"expected an object a line, got '\[1, 2\]"),
    ],
)
def test_bad_tables(tmp_path, name, content, options, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^{name}: .*{message}") as caught:
        open_source([str(tmp_path / name)], **options)
    assert "\n" not in str(caught.value)
