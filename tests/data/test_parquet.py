"""Parquet files, as items in shards and as pairs at any row."""

import pickle
import random

import pyarrow
import pyarrow.parquet
import pytest
from job_inputs import items
from pair_files import captions, picture, png, write_parquet

from siglip_jax.data import Pairs, captions_of, items_of, open_items, open_pairs, parquet
from siglip_jax.data.parquet_file import check_claims
from siglip_jax.data.storage import Stored


def test_bytes_and_texts_by_row_groups(tmp_path):
    for number in range(2):
        write_parquet(tmp_path / f"{number}.parquet", count=7, rows=3)
    source = open_items([str(tmp_path)], shard_size=6)
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
    source = open_items([str(path)], shard_size=size)
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
    found = items(open_items([str(tmp_path / "train-*.parquet")]))
    assert found[0].image.startswith(b"\x89PNG")
    assert found[1].image == png(1)
    name = "train-00000-of-00001.parquet:2"
    assert found[2] == (name, None, None, f"{name}: no image in column img")


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
    found = items(open_items([str(path)], key_column="id", text_column="title"))
    assert found == [
        ("17", str(tmp_path / "sub" / "0.png"), "a dog", None),
        ("4", "/x/1.png", None, None),
    ]
    found = items(open_items([str(path)], image_column="both"))
    assert [item.image for item in found] == [str(tmp_path / "sub" / "0.png"), png(1)]


def test_texts_alone(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", count=2, image=None)
    assert [item.text for item in items(open_items([str(path)]))] == ["dog 0", "dog 1"]
    found = items(open_items([str(write_parquet(tmp_path / "b.parquet", count=2))], only="texts"))
    assert [(item.key, item.image, item.text) for item in found] == [
        ("b.parquet:0", None, "dog 0"),
        ("b.parquet:0/2", None, "cat 0"),
        ("b.parquet:1", None, "dog 1"),
        ("b.parquet:1/2", None, "cat 1"),
    ]
    texts = ["a dog", "", None]
    path = write_parquet(tmp_path / "c.parquet", count=3, image=None, captions=texts)
    assert [item.error for item in items(open_items([str(path)]))] == [
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
    found = items(open_items([str(tmp_path / "a.parquet")], only="texts"))
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
    found = items(open_items([str(path)]))
    assert [item.image for item in found[:4]] == [png(n) for n in range(4)]
    assert [item.key for item in found] == [f"a.parquet:{n}" for n in range(8)]
    assert all(item.error.startswith("a.parquet: row ") for item in found[4:])


def test_a_large_row_group_is_not_read_whole(tmp_path):
    path, data = tmp_path / "a.parquet", random.Random(0).randbytes(100_000)
    table = pyarrow.table({"image": [data] * 400})
    pyarrow.parquet.write_table(table, path, use_dictionary=False, write_batch_size=8)
    del table
    before, most = pyarrow.total_allocated_bytes(), 0
    for item in open_items([str(path)]).read(0):
        assert item.image == data
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert 1 << 20 < most < 12 << 20  # of 40 MB


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {},
            {"image_column": "imag"},
            "no column imag; the columns are image, captions; did you mean",
        ),
        ({}, {"text_column": "title"}, "no column title; the columns are image, captions"),
        (
            {},
            {"key_column": "id"},
            "no column id; the columns are image, captions; name it with key_column$",
        ),
        ({"image": None, "captions": None, "x": [1]}, {}, "no column image or img or jpg or png"),
        ({"image": [1] * 7}, {}, "column image holds int64; expected the bytes of image files"),
        ({"captions": [1] * 7}, {}, "column captions holds int64; expected a string or a list"),
        (
            {"key": list("abcdbfg")},
            {},
            "'b' is 2 times in column key; name a column with key_c",
        ),
        ({"key": ["a", None, *"cdefg"]}, {}, "row 1 has no key in column key"),
        ({"captions": None}, {"only": "texts"}, "no column caption or captions or text"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, columns, options, message):
    path = write_parquet(tmp_path / "a.parquet", **columns)
    for opened in (open_items, open_pairs):
        if opened is open_pairs and ("key" in columns or options.pop("only", None)):
            continue
        with pytest.raises(ValueError, match=f"a.parquet: {message}") as caught:
            opened(str(path), **options)
        assert "\n" not in str(caught.value)


def test_keys_that_two_files_share(tmp_path):
    for name in ("a.parquet", "b.parquet"):
        write_parquet(tmp_path / name, key=list("abcdefg"))
    with pytest.raises(ValueError, match="'a' is 2 times in column key"):
        open_items([str(tmp_path)])
    # Of pairs several may be of one image, which its key names.
    assert open_pairs(str(tmp_path))[8] == ("b", png(1), captions(1))


@pytest.mark.parametrize("keep", [0, 3, 100, -9])
def test_a_damaged_file(tmp_path, keep):
    path = write_parquet(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"a\.parquet: not a Parquet file that can be read: ") as e:
        open_items([str(path)])
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match=r"a\.parquet: not a Parquet file that can be read: "):
        open_pairs(str(path))


def test_no_rows(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {"image": pyarrow.array([], "binary"), "text": pyarrow.array([], "string")}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    for opened in (open_items, open_pairs):
        with pytest.raises(ValueError, match=r"a\.parquet: there are no rows in it"):
            opened(str(path))


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
    with pytest.raises(ValueError, match=r"none\.png: no such file or folder"):
        open_pairs(str(b))[1]


def test_columns_can_be_named(tmp_path):
    columns = {"image": None, "captions": None, "photo": [png(0)], "title": ["a dog"]}
    file = write_parquet(tmp_path / "a.parquet", 1, **columns)
    pairs = open_pairs(str(file), image_column="photo", text_column="title")
    assert pairs[0] == ("a.parquet:0", png(0), ("a dog",))


def test_a_null_image_is_one_that_cannot_be_read(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", 2, image=[png(0), None])
    with pytest.raises(ValueError, match=r"^a\.parquet:1: no image in column image$"):
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
    real = parquet.opened_parquet
    spy = lambda *a, **options: opened.append(1) or real(*a, **options)  # noqa: E731
    monkeypatch.setattr(parquet, "opened_parquet", spy)
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


def test_missing_captions_are_counted(tmp_path):
    texts = [["a"], [], None, ["", " "], ["b"], [], ["c"]]
    file = write_parquet(tmp_path / "a.parquet", captions=texts)
    message = (
        r"a\.parquet: 4 of 7 pairs have no caption: a\.parquet:1, a\.parquet:2, a\.parquet:3, "
        r"\.\.\.; add what is missing or leave these out$"
    )
    with pytest.raises(ValueError, match=message):
        open_pairs(str(file))


@pytest.mark.parametrize("claim", [10**12, 2**62])
def test_rows_that_no_file_of_its_size_holds(tmp_path, monkeypatch, claim):
    """A number of the footer: shards of all these rows would be listed."""
    path = write_parquet(tmp_path / "a.parquet")

    class Group:
        num_rows, total_byte_size = claim, 0

    class Metadata:
        num_row_groups = 1

        def row_group(self, number):
            return Group

    with pytest.raises(ValueError, match=r"a\.parquet: it claims to hold [\d,]+ rows"):
        check_claims(Stored("a.parquet", str(path), path.stat().st_size), Metadata())


def test_a_column_that_unpacks_to_far_more_than_it_takes(tmp_path):
    rows = ["a" * (1 << 20) for _ in range(3)]
    path = write_parquet(tmp_path / "a.parquet", count=3, captions=rows)
    assert len(open_items([str(path)]).shards()) == 1  # megabytes are no claim


def test_a_damaged_page_costs_its_rows_as_pairs(tmp_path):
    """Training goes on without them, and says of each which file and row it is."""
    images = [bytes(5000) + bytes([i]) for i in range(12)]
    table = pyarrow.table({"image": images, "caption": [f"c{i}" for i in range(12)]})
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=4, use_dictionary=False)
    begin = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    for at in range(begin + 40, begin + 60):
        data[at] ^= 0xFF
    path.write_bytes(bytes(data))
    pairs = open_pairs(str(path))
    found = list(items_of(pairs))
    assert [item.error is None for item in found] == [True] * 4 + [False] * 4 + [True] * 4
    for row in range(4, 8):
        assert found[row].error.startswith(f"x.parquet: row {row}: ")
        assert "\n" not in found[row].error


def test_texts_that_are_no_utf8_cost_their_rows(tmp_path):
    path = tmp_path / "x.parquet"
    text = pyarrow.array([b"a dog", b"a \xff cat"])
    text = pyarrow.Array.from_buffers(pyarrow.string(), 2, text.buffers())
    table = pyarrow.table({"image": [png(0), png(1)], "caption": text})
    pyarrow.parquet.write_table(table, path)
    source = open_items([str(path)])
    found = [item for shard in range(len(source.shards())) for item in source.read(shard)]
    assert [item.error is None for item in found] == [False, False]
    assert all("x.parquet: row" in item.error and "utf-8" in item.error for item in found)


def test_a_size_that_nothing_has_memory_for(tmp_path, monkeypatch):
    """As a damaged page states it."""
    path = write_parquet(tmp_path / "a.parquet")

    def fails(self, *args, **options):
        raise pyarrow.lib.ArrowMemoryError("malloc of size 1721768896 failed")
        yield

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", fails)
    source = open_items([str(path)])
    found = list(source.read(0))
    assert found and all("malloc of size" in item.error for item in found)
