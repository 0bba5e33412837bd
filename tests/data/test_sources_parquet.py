"""Parquet files as the source of a bulk job."""

import pickle
import random

import pyarrow
import pyarrow.parquet
import pytest
from job_inputs import items
from pair_files import captions, picture, png, write_parquet

from siglip_jax.jobs.sources import open_source


def test_bytes_and_texts_by_row_groups(tmp_path):
    for number in range(2):
        write_parquet(tmp_path / f"{number}.parquet", count=7, rows=3)
    source = open_source([str(tmp_path)], shard_size=6)
    assert [(shard.name, shard.items) for shard in source.shards()] == [
        ("0.parquet from row 0", 6),
        ("0.parquet from row 6", 1),
        ("1.parquet from row 0", 6),
        ("1.parquet from row 6", 1),
    ]
    expected = [(f"0.parquet:{n}", png(n), captions(n)[0], None) for n in range(7)]
    assert items(source)[:7] == expected
    copy = pickle.loads(pickle.dumps(source))
    assert copy.identity() == source.identity()
    assert list(copy.read(1, keys={"0.parquet:6"})) == expected[6:]
    assert list(copy.read(1, keys=())) == []


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 40, 100])
@pytest.mark.parametrize("size", [1, 4, 33, 1000])
def test_every_row_is_in_one_shard_of_a_bounded_size(tmp_path, rows, size):
    path = write_parquet(tmp_path / "a.parquet", count=71, rows=rows)
    source = open_source([str(path)], shard_size=size)
    assert [item.key for item in items(source)] == [f"a.parquet:{n}" for n in range(71)]
    assert [item.image for item in items(source)] == [png(n) for n in range(71)]
    for number, shard in enumerate(source.shards()):
        assert len(list(source.read(number))) == shard.items <= size


def test_what_hugging_face_writes(tmp_path):
    datasets = pytest.importorskip("datasets")
    (tmp_path / "named.png").write_bytes(png(2))
    made = datasets.Dataset.from_dict(
        {"img": [picture(0), {"bytes": png(1), "path": "x.png"}, None], "label": [0, 1, 0]},
        features=datasets.Features(
            {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
        ),
    )
    made.to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    found = items(open_source([str(tmp_path / "train-*.parquet")]))
    assert found[0].image.startswith(b"\x89PNG")
    assert found[1].image == png(1)
    name = "train-00000-of-00001.parquet:2"
    assert found[2] == (name, None, None, f"{name}: no picture in column img")


def test_paths_structs_of_paths_and_other_names(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "0.png").write_bytes(png(0))
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    places = [{"bytes": None, "path": "sub/0.png"}, {"bytes": png(1), "path": None}]
    path = tmp_path / "a.parquet"
    table = pyarrow.table(
        {
            "image": ["sub/0.png", "/x/1.png"],
            "both": pyarrow.array(places, kind),
            "id": [17, 4],
            "title": pyarrow.array(["a dog", None]),
        }
    )
    pyarrow.parquet.write_table(table, path)
    found = items(open_source([str(path)], key="id", text="title"))
    assert found == [
        ("17", str(tmp_path / "sub" / "0.png"), "a dog", None),
        ("4", "/x/1.png", None, None),
    ]
    found = items(open_source([str(path)], image="both"))
    assert [item.image for item in found] == [str(tmp_path / "sub" / "0.png"), png(1)]


def test_texts_alone(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", count=2, image=None)
    assert [item.text for item in items(open_source([str(path)]))] == ["dog 0", "dog 1"]
    found = items(open_source([str(write_parquet(tmp_path / "b.parquet", count=2))], only="texts"))
    assert [(item.key, item.image, item.text) for item in found] == [
        ("b.parquet:0", None, "dog 0"),
        ("b.parquet:0/2", None, "cat 0"),
        ("b.parquet:1", None, "dog 1"),
        ("b.parquet:1/2", None, "cat 1"),
    ]
    texts = ["a dog", "", None]
    path = write_parquet(tmp_path / "c.parquet", count=3, image=None, captions=texts)
    assert [item.error for item in items(open_source([str(path)]))] == [
        None,
        "c.parquet:1: no text in column captions",
        "c.parquet:2: no text in column captions",
    ]


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.list_(pyarrow.string(), 2),
        pyarrow.large_list(pyarrow.large_string()),
        pyarrow.list_(pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
    ],
    ids=["fixed", "large", "dictionary"],
)
def test_lists_of_texts_of_every_kind(tmp_path, kind):
    lists = pyarrow.array([["a dog", "a cat"], ["one", "two"]], pyarrow.list_(pyarrow.string()))
    pyarrow.parquet.write_table(pyarrow.table({"text": lists.cast(kind)}), tmp_path / "a.parquet")
    found = items(open_source([str(tmp_path / "a.parquet")], only="texts"))
    assert [item.text for item in found] == ["a dog", "a cat", "one", "two"]


def test_damage_inside_loses_no_row_without_a_word(tmp_path):
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"image": [png(n) for n in range(8)]})
    pyarrow.parquet.write_table(table, path, row_group_size=4, compression="gzip")
    group = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = group.dictionary_page_offset or group.data_page_offset
    data[start : start + group.total_compressed_size] = b"\xaa" * group.total_compressed_size
    path.write_bytes(data)
    found = items(open_source([str(path)]))
    assert [item.image for item in found[:4]] == [png(n) for n in range(4)]
    assert [item.key for item in found] == [f"a.parquet:{n}" for n in range(8)]
    assert all(item.error.startswith("a.parquet: row ") for item in found[4:])


def test_a_large_row_group_is_not_read_whole(tmp_path):
    path, data = tmp_path / "a.parquet", random.Random(0).randbytes(100_000)
    table = pyarrow.table({"image": [data] * 400})
    pyarrow.parquet.write_table(table, path, use_dictionary=False, write_batch_size=8)
    del table
    before, most = pyarrow.total_allocated_bytes(), 0
    for item in open_source([str(path)]).read(0):
        assert item.image == data
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert 1 << 20 < most < 12 << 20  # of 40 MB


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"image": "imag"}, "no column imag; the columns are image, captions; did you mean"),
        ({}, {"text": "title"}, "no column title; the columns are image, captions"),
        ({}, {"key": "id"}, "no column id; the columns are image, captions; name it with key="),
        ({"image": None, "captions": None, "x": [1]}, {}, "no column image or img or jpg or png"),
        ({"image": [1] * 7}, {}, "column image holds int64; expected the bytes of image files"),
        ({"captions": [1] * 7}, {}, "column captions holds int64; expected a string or a list"),
        ({"key": list("abcdbfg")}, {}, "'b' is 2 times in column key; name a column with key="),
        ({"key": ["a", None, *"cdefg"]}, {}, "row 1 has no key in column key"),
        ({"captions": None}, {"only": "texts"}, "no column caption or captions or text"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, columns, options, message):
    path = write_parquet(tmp_path / "a.parquet", **columns)
    with pytest.raises(ValueError, match=f"a.parquet: {message}") as caught:
        open_source([str(path)], **options)
    assert "\n" not in str(caught.value)


def test_keys_that_two_files_share(tmp_path):
    for name in ("a.parquet", "b.parquet"):
        write_parquet(tmp_path / name, key=list("abcdefg"))
    with pytest.raises(ValueError, match="'a' is 2 times in column key"):
        open_source([str(tmp_path)])


@pytest.mark.parametrize("keep", [0, 3, 100, -9])
def test_a_damaged_file(tmp_path, keep):
    path = write_parquet(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"a\.parquet: not a Parquet file that can be read: ") as e:
        open_source([str(path)])
    assert "\n" not in str(e.value)


def test_no_rows(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": pyarrow.array([], "binary")}), path)
    with pytest.raises(ValueError, match=r"a\.parquet: there are no rows in it"):
        open_source([str(path)])
