"""Columns that items carry along from their source."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_inputs import items
from pair_files import png, write_tar

from siglip_jax.data import open_items
from siglip_jax.data.stamps import item_stamp

NANO = np.datetime64("2020-01-01T00:00:00.123456789")
# Of every kind that a program may write, and what a job writes of it.
COLUMNS = {
    "url": (["http://a", None, "http://c"], pa.string(), pa.string()),
    "licence": (["cc", None, "cc"], pa.dictionary(pa.int8(), pa.string()), pa.string()),
    "wide": (["a", "b", None], pa.large_string(), pa.string()),
    "similarity": ([0.5, None, 0.25], pa.float16(), pa.float16()),
    "when": ([NANO, None, NANO], pa.timestamp("ns"), pa.timestamp("ns")),
    "tags": ([["a", None], None, []], pa.list_(pa.string()), pa.list_(pa.string())),
    "box": ([[1, 2], None, [3, 4]], pa.list_(pa.int16(), 2), pa.list_(pa.int16(), 2)),
    "exif": (
        [{"iso": 100, "bytes": b"a"}, None, {"iso": None, "bytes": b"b"}],
        pa.struct([("iso", pa.int32()), ("bytes", pa.binary())]),
        pa.struct([("iso", pa.int32()), ("bytes", pa.binary())]),
    ),
    "nothing": ([None] * 3, pa.null(), pa.string()),
}


def columns_of(source):
    """The kept columns of all items, as a job writes them."""
    found = items(source)
    return {
        name: pa.concat_arrays([item.kept[name] for item in found])
        for name, kind in source.kept().items()
    }


def write_rows(path, **more):
    made = {name: pa.array(values, kind) for name, (values, kind, _) in COLUMNS.items()}
    table = pa.table({"image": [png(n) for n in range(3)], **made, **more})
    if path.suffix == ".arrow":
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    else:
        pq.write_table(table, path, row_group_size=2)
    return str(path)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_columns_keep_their_types(tmp_path, ending):
    path = write_rows(tmp_path / f"a.{ending}")
    source = open_items([path], only="images", keep=list(COLUMNS), shard_size=2)
    types = {name: kind for name, (_, _, kind) in COLUMNS.items()}
    assert source.kept() == types
    found = columns_of(pickle.loads(pickle.dumps(source)))
    for name, (values, _, kind) in COLUMNS.items():
        assert found[name].equals(pa.array(values, kind)), name
    # What is kept is no part of what the data are.
    assert source.identity() == open_items([path], only="images", shard_size=2).identity()
    assert all(item.kept is None for item in items(open_items([path], only="images")))


def test_files_must_agree(tmp_path):
    (tmp_path / "rows").mkdir()
    write_rows(tmp_path / "rows/a.parquet")
    write_rows(tmp_path / "rows/b.parquet", more=[1, 2, 3])
    with pytest.raises(ValueError, match=r"a\.parquet: no column more; the columns are image, url"):
        open_items([str(tmp_path / "rows")], keep=["more"])
    found = open_items([str(tmp_path / "rows")], keep=["when"])
    assert len(columns_of(found)["when"]) == 6
    images = [png(n) for n in range(3)]
    for name, values in (("a", [None] * 3), ("b", [1, 2, None]), ("c", [0.5] * 3)):
        pq.write_table(pa.table({"image": images, "n": values}), tmp_path / f"rows/{name}.parquet")
    two = [str(tmp_path / f"rows/{name}.parquet") for name in "ab"]
    found = columns_of(open_items(two, keep=["n"]))["n"]
    assert found.equals(pa.array([None, None, None, 1, 2, None], pa.int64()))
    with pytest.raises(
        ValueError,
        match=r"c\.parquet: column n holds double, and in .*b\.parquet int64; write it in one type",
    ):
        open_items([str(tmp_path / "rows")], keep=["n"])
    # As of files of two formats, of which one has no types.
    (tmp_path / "t.jsonl").write_text('{"image": "x.png", "n": 1}\n')
    both = open_items([two[1], str(tmp_path / "t.jsonl")], keep=["n"])
    with pytest.raises(ValueError, match=r"t\.jsonl.*: column n holds string, and in .* int64"):
        both.kept()


def test_bytes_that_are_no_text(tmp_path):
    bad = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    source = open_items([write_rows(tmp_path / "a.parquet", bad=bad)], keep=["bad"])
    found = [item.error for item in items(source)]
    # In one row group with it, and no row is lost without a word.
    assert [error is None for error in found] == [False, False, True]
    assert found[1].startswith("a.parquet: row 1: Invalid")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_tables(tmp_path, ending):
    rows = [("0.png", "a dog", "1"), ("1.png", "", "2"), ("", "no image", "3")]
    path = tmp_path / f"t.{ending}"
    if ending == "jsonl":
        objects = [{"file_name": f, "alt": a or None, "n": int(n)} for f, a, n in rows]
        objects[1]["late"] = ["x", 0.5]
        path.write_text("".join(json.dumps(one) + "\n" for one in objects))
    else:
        mark = {"csv": ",", "tsv": "\t"}[ending]
        path.write_text("\n".join(mark.join(row) for row in [("file_name", "alt", "n"), *rows]))
    keep = ["alt", "file_name", "n", *(["late"] if ending == "jsonl" else [])]
    source = open_items([str(path)], only="images", keep=keep)
    assert source.kept() == dict.fromkeys(keep, pa.string())
    found = items(source)
    assert found[2].error is not None  # its columns are kept all the same
    assert [item.kept["n"] for item in found] == ["1", "2", "3"]
    assert found[0].kept["file_name"] == "0.png"
    assert found[1].kept["alt"] == (None if ending == "jsonl" else "")
    if ending == "jsonl":
        assert [item.kept["late"] for item in found] == [None, '["x", 0.5]', None]
    # A row is another one when what is kept of it is.
    one = found[0]._replace(image=b"a")
    assert len({item_stamp(one._replace(kept=own)) for own in (None, {"a": ""}, {"a": None})}) == 3


def test_a_row_that_is_too_long_keeps_nothing(tmp_path):
    (tmp_path / "t.csv").write_text("file_name,alt\na.png,a, dog\nb.png,a cat\n")
    first, second = items(open_items([str(tmp_path / "t.csv")], only="images", keep=["alt"]))
    assert (first.kept, second.kept) == (None, {"alt": "a cat"})
    assert "3 fields in 2 columns" in first.error


def test_every_text_of_a_row(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"caption": ["a dog", "a cat"], "url": "u"}\n')
    found = items(open_items([str(tmp_path / "t.jsonl")], only="texts", keep=["url"]))
    assert [(item.text, item.kept) for item in found] == [
        ("a dog", {"url": "u"}),
        ("a cat", {"url": "u"}),
    ]


def described(**fields):
    return json.dumps(fields).encode()


def test_fields_of_a_tar(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("0.jpg", png(0)),
            ("0.txt", b"a dog"),
            ("0.json", described(url="u0", width=20, exif={"iso": 1}, caption="a dog")),
            ("1.json", described(url=None, width=0.5)),
            ("1.jpg", png(1)),
            ("2.jpg", png(2)),
            ("3.jpg", png(3)),
            ("3.json", b"[1]"),
            ("4.left.png", png(4)),
            ("4.left.json", described(url="left")),
            ("4.right.png", png(5)),
            ("4.json", described(url="both")),
        ],
    )
    keep = ["url", "width", "exif"]
    for only in ("images", None):
        source = open_items([str(path)], only=only, keep=keep)
        assert source.kept() == dict.fromkeys(keep, pa.string())
        found = {item.key: item for item in items(source)}
        assert [key for key in found if found[key].error] == ["a.tar/3"]
        assert ".json must hold an object, got list" in found["a.tar/3"].error
        assert found["a.tar/0"].kept == {"url": "u0", "width": "20", "exif": '{"iso": 1}'}
        assert found["a.tar/1"].kept == {"url": None, "width": "0.5", "exif": None}
        assert found["a.tar/2"].kept == dict.fromkeys(keep)
        assert found["a.tar/4.left"].kept["url"] == "left"
        assert found["a.tar/4.right"].kept["url"] == "both"
        plain = items(open_items([str(path)], only="images"))
        assert [item.key for item in plain] == list(found)
        assert found["a.tar/0"].text == (None if only else "a dog")


def test_a_tar_that_lacks_a_field(tmp_path):
    rows = [("0.jpg", png(0)), ("0.json", described(url="u", caption="a"))]
    path = str(write_tar(tmp_path / "a.tar", rows))
    with pytest.raises(
        ValueError,
        match=r"^a\.tar: no column urls; the columns are url, caption; did you mean keep='url'\?$",
    ):
        open_items([path], keep=["urls"])
    # A field may be left out where it has no value, and a tar may be empty.
    rows += [("1.jpg", png(1)), ("1.json", described(url="v", nsfw=True))]
    write_tar(tmp_path / "a.tar", rows)
    write_tar(tmp_path / "0.tar", [])
    found = open_items([str(tmp_path / "0.tar"), path], keep=["nsfw"])
    assert [item.kept["nsfw"] for item in found.read(1)] == [None, "true"]
    write_tar(tmp_path / "a.tar", rows[::2])
    with pytest.raises(ValueError, match=r"a\.tar: there is no \.json beside its images that has"):
        open_items([path], keep=["url"])
    # One that cannot be read says so when its turn comes.
    (tmp_path / "b.tar").write_bytes(b"hello")
    assert open_items([str(tmp_path / "b.tar")], keep=["url"]).kept() == {"url": pa.string()}


def test_features_of_tfds(tfds):
    tfds.caption = "text"
    source = open_items(["tfds:coco"], only="images", keep=["image/id", "text"])
    assert source.kept() == {"image/id": pa.int64(), "text": pa.string()}
    found = [item.kept for item in items(source)]
    assert found[:2] == [{"image/id": 0, "text": "dog 0"}, {"image/id": 1, "text": "dog 1"}]
    with pytest.raises(ValueError, match="feature image is neither one number nor one text"):
        open_items(["tfds:coco"], keep=["image"])
    with pytest.raises(ValueError, match=r"no column id; the columns are image, image/id, text"):
        open_items(["tfds:coco"], keep=["id"])


@pytest.mark.parametrize(
    ("spec", "keep", "message"),
    [
        ("images", ["a"], "images: images have no columns, which Parquet, .arrow, .csv, .*leave"),
        ("texts:w.txt", ["a"], r"texts:w\.txt: texts have no columns, which Parquet"),
        ("t.csv", ["utl"], r"no column utl; the columns are image, url; did you mean keep='url'\?"),
        ("t.csv", ["x"], r"no column x; the columns are image, url; name some of them with keep$"),
        ("t.csv", "url", "keep must be a list of names of columns, got the string 'url'"),
        ("t.csv", ["url", ""], "got '' in it"),
        ("t.csv", ["url", "url"], "column url is named twice; name it once in keep"),
        ("p.parquet", ["image"], "column image holds the images themselves; leave it out of keep"),
    ],
)
def test_what_cannot_be_kept(tmp_path, monkeypatch, spec, keep, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(png(0))
    (tmp_path / "w.txt").write_text("a dog\n")
    (tmp_path / "t.csv").write_text("image,url\nimages/a.png,u\n")
    write_rows(tmp_path / "p.parquet")
    with pytest.raises(ValueError, match=message) as caught:
        open_items([spec], keep=keep)
    assert "\n" not in str(caught.value)
