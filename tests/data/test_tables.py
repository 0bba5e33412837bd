"""CSV, TSV, JSONL and text files, beside images or anywhere."""

import csv
import json
import pickle

import pytest
from job_inputs import items
from pair_files import png

from siglip_jax.data import captions_of, open_items, open_pairs
from siglip_jax.data.columns import Wanted
from siglip_jax.data.separated import style_of

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
    source = open_items([str(write(tmp_path / f"t.{ending}"))], shard_size=size)
    assert [s.items for s in source.shards()] == [
        *[size] * (5 // size),
        *[5 % size] * (5 % size > 0),
    ]
    text = ROWS[0][1].replace("\n", " ") if ending == "tsv" else ROWS[0][1]
    error = f"t.{ending}:4: no image in column file_name"
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
    assert [(item.key, item.text) for item in items(open_items([str(path)]))] == [
        ("t.csv:0", "a dog"),
        ("t.csv:1", None),
        ("t.csv:2", "a cat"),
    ]
    found = items(open_items([str(path)], key_column="id"))
    assert [(item.key, item.error) for item in found] == [
        ("7", None),
        ("9", "9: no text in column text"),
        ("7#2", None),
    ]


def test_several_texts_of_a_row(tmp_path):
    path = write(tmp_path / "t.jsonl", [("a.jpg", ["a dog", "a cat"])], ("image", "captions"))
    assert [item.text for item in items(open_items([str(path)]))] == ["a dog"]
    source = open_items([str(path)], only="texts")
    assert [(item.key, item.text) for item in items(source)] == [
        ("t.jsonl:0", "a dog"),
        ("t.jsonl:0/2", "a cat"),
    ]
    assert [shard.items for shard in source.shards()] == [None]


def test_lines_of_text(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("\ufeffa dog\r\n\n  ein Hund → müde \na dog\nlast", newline="")
    source = open_items([f"texts:{path}"], shard_size=2)
    assert [shard.items for shard in source.shards()] == [2, 2]
    assert items(source) == [
        (f"t.txt:{n}", None, text, None)
        for n, text in enumerate(["a dog", "ein Hund → müde", "a dog", "last"])
    ]


def test_several_sources_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv"), write(tmp_path / "b.jsonl")
    (tmp_path / "x.jpg").write_bytes(b"x")
    source = open_items(["a.csv", "x.jpg", "b.jsonl"])
    assert [shard.name for shard in source.shards()] == [
        "a.csv from row 0",
        "images 1 to 1",
        "b.jsonl from row 0",
    ]
    assert items(source)[5:7] == [("x.jpg", "x.jpg", None, None), items(source)[6]]
    assert source.identity() != open_items(["x.jpg", "a.csv", "b.jsonl"]).identity()
    copy = pickle.loads(pickle.dumps(source))
    assert [item.key for item in copy.read(1, {"x.jpg"})] == ["x.jpg"]


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


def put(folder, *names):
    for number, name in enumerate(names):
        (folder / f"{name}.png").write_bytes(png(number))


@pytest.mark.parametrize("given", ["folder", "table"])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_captions(tmp_path, name, given):
    put(tmp_path, *"ab", "unnamed")
    (tmp_path / name).write_text(TABLES[name])
    spec = str(tmp_path if given == "folder" else tmp_path / name)
    pairs = open_pairs(spec)
    assert [pairs[n] for n in range(len(pairs))] == [
        ("a.png", png(0), ("a dog, running", "two")),
        ("b.png", png(1), ("a cat",)),
    ]
    assert pickle.loads(pickle.dumps(pairs))[1] == pairs[1]
    # Of a folder only what the table names, as pairs have it; of images alone all.
    found = items(open_items([spec]))
    assert (found[0].key, found[0].text) == ("a.png", "a dog, running")
    assert {item.key.partition("#")[0] for item in found} == {"a.png", "b.png"}
    if given == "folder":
        found = items(open_items([spec], only="images"))
        assert [item.key for item in found] == ["a.png", "b.png", "unnamed.png"]


def test_columns_of_a_table_can_be_named(tmp_path):
    put(tmp_path, "a")
    (tmp_path / "captions.csv").write_text("photo,title,caption\na.png,A,B\n")
    assert captions_of(open_pairs(str(tmp_path), image_column="photo", text_column="title")) == [
        ("A",)
    ]


def test_quotation_marks_in_tabs_are_just_that(tmp_path):
    put(tmp_path, *"ab")
    (tmp_path / "captions.tsv").write_text('file_name\tcaption\na.png\t"so\nb.png\tb\n')
    assert captions_of(open_pairs(str(tmp_path))) == [('"so',), ("b",)]


def test_an_image_that_is_not_there_fails_when_its_turn_comes_unless_all_do(tmp_path):
    put(tmp_path, "a")
    path = tmp_path / "captions.csv"
    path.write_text("image,caption\na.png,x\nz.png,y\n")
    pairs = open_pairs(str(tmp_path))
    assert pairs[0].captions == ("x",)
    with pytest.raises(ValueError, match=r"z\.png: no such file or folder$"):
        pairs[1]
    path.write_text("image,caption\nz.png,y\n")
    message = r"^captions\.csv: .*z\.png is no file, nor are the images of the rows after it; paths"
    with pytest.raises(ValueError, match=message):
        open_pairs(str(tmp_path))


def test_a_row_that_names_no_image_is_a_pair_that_cannot_be_read(tmp_path):
    put(tmp_path, "a")
    write(tmp_path / "t.jsonl", [("a.png", "x"), (None, "y")])
    pairs = open_pairs(str(tmp_path / "t.jsonl"))
    assert pairs.captions(1) == ("y",)
    with pytest.raises(ValueError, match=r"^t\.jsonl:1: no image in column file_name$"):
        pairs[1]


def test_an_empty_caption_is_refused(tmp_path):
    put(tmp_path, "a")
    path = write(tmp_path / "t.csv", [("a.png", "")])
    with pytest.raises(ValueError, match=r"t\.csv: 1 of 1 pairs have no caption: a\.png; "):
        open_pairs(str(path))


def test_a_caption_may_hold_a_line_separator(tmp_path):
    put(tmp_path, "a")
    (tmp_path / "metadata.csv").write_text("image,text\na.png,a\u2028b\n")
    assert captions_of(open_pairs(str(tmp_path))) == [("a\u2028b",)]
    row = json.dumps({"file_name": "a.png", "caption": "a\u2028b"}, ensure_ascii=False)
    (tmp_path / "captions.jsonl").write_text(row)
    assert captions_of(open_pairs(str(tmp_path))) == [("a\u2028b",)]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("t.csv", b"name,title\na.jpg,x\n", {}, "no column image or img or .*columns are name, t"),
        (
            "t.csv",
            b"file_name,caption\na.jpg,x\n",
            {"text_column": "captoin"},
            "mean text_column='capt",
        ),
        ("t.csv", b"file_name,caption\n", {}, "there are no rows in it"),
        ("t.csv", b"", {}, "there are no rows in it"),
        ("t.csv", b"image\ncaf\xe9\n", {}, "not UTF-8 text at byte 6"),
        (
            "t.csv",
            b'image\n"' + b"x" * 200_000,
            {},
            "line 2 has no partner .seen at line 2: field larger",
        ),
        ("t.jsonl", b'{"image": "a.jpg"}\n{"image":\n', {}, "the line before byte 29 is not JSON"),
        ("t.jsonl", b"[1, 2]\n", {}, r"expected an object a line, got '\[1, 2\]"),
    ],
)
def test_bad_tables(tmp_path, name, content, options, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^{name}: .*{message}") as caught:
        open_items([str(tmp_path / name)], **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=f"^{name}: "):
        open_pairs(str(tmp_path / name), **options)


STRAY = 'image,caption\na.jpg,a dog\nb.jpg,"6 inch nails\n' + "c.jpg,a cat\n" * 1000


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (STRAY, 3),
        (STRAY + 'd.jpg,"a quoted, one"\n', 3),
        (STRAY + 'd.jpg,another 5" one\n', 3),
        ('image,caption\n"a.jpg,a dog\n"b.jpg",a cat\n', 2),
        ('"image,caption\na.jpg,a dog\n', 1),
        ('image,caption\na.jpg,"two\nlines"\nb.jpg,"a" dog\n', 4),
    ],
)
def test_a_stray_quotation_mark_swallows_no_row(tmp_path, content, line):
    (tmp_path / "t.csv").write_text(content)
    message = rf"^t\.csv: a quotation mark in the row that begins at line {line} has no partner"
    for opens in (lambda path: open_items([path]), open_pairs):
        with pytest.raises(ValueError, match=message):
            opens(str(tmp_path / "t.csv"))


def test_quotation_marks_that_match_are_read(tmp_path):
    (tmp_path / "t.csv").write_text('image,text\na.jpg,"a 6"" nail,\nnew"\nb.jpg,5" wide\n')
    assert [i.text for i in items(open_items([str(tmp_path / "t.csv")]))] == [
        'a 6" nail,\nnew',
        '5" wide',
    ]


def test_fields_beyond_the_header_are_an_error_of_their_row(tmp_path):
    put(tmp_path, "a", "b")
    path = tmp_path / "t.csv"
    path.write_text("image,caption\na.png,a dog, running, on grass\nb.png,a cat,,\n")
    bad, good = items(open_items([str(path)]))
    assert bad.image is None and good.text == "a cat"
    assert bad.error == (
        "a.png: 4 fields in 2 columns, beyond them ' running'; "
        'put a field that holds commas in quotation marks: "..."'
    )
    with pytest.raises(ValueError, match=r"^a\.png: 4 fields in 2 .*\(1 such row\)$"):
        open_pairs(str(path))
    path.write_text("url\nhttps://host/a.jpg?crop=2669,12,3\n")
    assert items(open_items([str(path)]))[0].error.startswith(
        "https://host/a.jpg: 3 fields in 1 columns"
    )


@pytest.mark.parametrize(
    ("name", "content", "separator"),
    [
        ("t.csv", "filepath\ttitle\na.jpg\ta dog, brown; small\n", None),
        ("t.csv", "filepath;title\na.jpg;a dog, brown; small\n".replace("; small", " small"), None),
        ("t.csv", "filepath|title\na.jpg|a dog, brown small\n", None),
        ("t.csv", 'filepath, title\na.jpg, "a dog, brown small"\n', None),
        ("t.tsv", "filepath:title\na.jpg:a dog, brown small\n", ":"),
        ("t.csv", "filepath,x:title\na.jpg,1:a dog, brown small\n", ":"),
    ],
)
def test_separators(tmp_path, name, content, separator):
    (tmp_path / name).write_text(content)
    image = "filepath,x" if "filepath,x" in content else "filepath"
    options = {"image_column": image, "text_column": "title", "separator": separator}
    (item,) = items(open_items([str(tmp_path / name)], **options))
    assert item.error is None
    assert item.text.replace(";", "") == "a dog, brown small"


def test_a_separator_is_one_character_and_of_tables_alone(tmp_path):
    (tmp_path / "t.csv").write_text("image\na.jpg\n")
    with pytest.raises(ValueError, match="separator must be one character, got 'ab'"):
        open_items([str(tmp_path / "t.csv")], separator="ab")
    put(tmp_path, "a")
    with pytest.raises(ValueError, match="images have no fields to separate; leave out separator"):
        open_items([str(tmp_path / "a.png")], separator=";")


def test_pairs_need_a_column_of_texts_before_anything_is_read(tmp_path):
    (tmp_path / "t.csv").write_text("image,title\na.jpg,a dog\n")
    open_items([str(tmp_path / "t.csv")])
    with pytest.raises(ValueError, match="no column caption or captions or text; the columns are"):
        open_items([str(tmp_path / "t.csv")], only="pairs")


def test_what_was_not_asked_for_is_not_in_an_identity(tmp_path):
    """Jobs that began before there was a separator go on."""
    path = write(tmp_path / "t.csv")
    assert Wanted().identity() == [None, None, None, None]
    assert Wanted(both=True).identity() == [None, None, None, None]
    plain, given = (open_items([str(path)], separator=mark).identity() for mark in (None, ","))
    assert plain != given


def test_a_first_line_that_is_no_row():
    with pytest.raises(
        ValueError, match=r"^a\.csv: its first line is no row of a table \(new-line"
    ):
        style_of("a.csv", "image,\rcaption")
