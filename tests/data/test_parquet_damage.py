"""Parquet files made to end the process, to fill the memory, or to give another row's caption."""

import itertools
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
import thrift
from pair_files import PROFILE, captions, png, tokenizer, write_parquet

from siglip_jax.data import Batches, items_of, open_items, open_pairs
from siglip_jax.data.parquet_footer import Footer

ROWS = 3000
READ = """
import sys
from siglip_jax.data import open_items
source = open_items([sys.argv[1]])
errors = [item.error for shard in range(len(source.shards())) for item in source.read(shard)]
print(len(errors), errors[0])
"""


def test_statistics_at_which_pyarrow_ends_the_process(tmp_path):
    """Sizes of another number than the column has levels: only `column` of its metadata looks."""
    path = write_parquet(tmp_path / "a.parquet", count=7, rows=3)
    data = path.read_bytes()
    fields = thrift.footer(data)
    column = next(thrift.chunks(fields))
    column[:] = [one for one in column if one[0] != 16]
    column.append([16, thrift.STRUCT, [[3, thrift.LISTS[0], (6, [0, 0, 3])]]])
    path.write_bytes(thrift.with_footer(data, fields))
    command = [sys.executable, "-c", READ, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout[:2]) == (0, "7 "), ended.stderr


POOLS = []  # kept: what is still held of a pool that is gone ends the process


@pytest.fixture
def most_bytes():
    """The most that pyarrow has held."""
    before = pyarrow.default_memory_pool()
    POOLS.append(pyarrow.proxy_memory_pool(before))
    pyarrow.set_memory_pool(POOLS[-1])
    yield POOLS[-1].max_memory
    pyarrow.set_memory_pool(before)


def repeated(value, count):
    """`count` times the same, stored once."""
    return pyarrow.DictionaryArray.from_arrays([0] * count, pyarrow.array([value]))


def write(path, **columns):
    pyarrow.parquet.write_table(
        pyarrow.table(columns), path, compression="zstd", dictionary_pagesize_limit=1 << 30,
        row_group_size=ROWS, write_statistics=False,
    )  # fmt: skip
    assert path.stat().st_size < 10_000
    return str(path)


@pytest.mark.parametrize("column", ["image", "caption"])
def test_a_large_value_that_many_rows_name(tmp_path, most_bytes, column):
    value = {"image": bytes(40 << 20), "caption": "a" * (40 << 20)}[column]
    path = write(tmp_path / "a.parquet", **{column: repeated(value, ROWS)})
    items = open_items([path]).read(0)
    assert [item[1 + (column == "caption")] == value for item in itertools.islice(items, 9)]
    assert 40 << 20 < most_bytes() < 450 << 20


def test_a_large_text_that_one_row_names_often(tmp_path, most_bytes):
    each = 1000
    texts = repeated("a" * (1 << 20), ROWS * each)
    lists = pyarrow.ListArray.from_arrays(list(range(0, ROWS * each + 1, each)), texts)
    path = write(tmp_path / "a.parquet", image=[png(0)] * ROWS, caption=lists)
    items = list(open_items([path]).read(0))
    assert len(items) == ROWS
    assert items[0].error == "a.parquet: row 0: the texts of 32 rows have 33,554,432,000 bytes"
    pairs = open_pairs(path)
    with pytest.raises(ValueError, match=r"^a\.parquet: row 2,999: the texts of \d+ rows have "):
        pairs.captions(ROWS - 1)
    assert most_bytes() < 450 << 20


def test_texts_of_large_dictionaries_are_read_all_the_same(tmp_path):
    """None of them is large, though together they could be."""
    texts = [[f"{'a' * 1000} {row % 1000}", "b", None][: row % 4] for row in range(ROWS)]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"caption": texts}), path)
    found = [item.text for item in open_items([str(path)], only="texts").read(0) if item.text]
    assert found == [text for row in texts for text in row if text]


@pytest.mark.parametrize("column", ["key", "caption", "image"])
def test_a_column_that_is_read_whole(tmp_path, most_bytes, column):
    large = repeated("a" * (40 << 20), ROWS)
    rest = {"image": [png(0)] * ROWS, "caption": ["a dog"] * ROWS}
    path = write(tmp_path / "a.parquet", **(rest | {column: large}))
    message = rf"^a\.parquet: .*column {column} unpacks to more than 53\d,\d+,\d+ bytes$"
    with pytest.raises(ValueError, match=message):
        if column == "key":
            open_items([path], key_column="key")
        open_pairs(path)[ROWS - 1]
    assert most_bytes() < 700 << 20


def test_a_page_that_says_it_unpacks_to_anything(tmp_path, most_bytes):
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"image": [png(n) for n in range(8)]})
    pyarrow.parquet.write_table(table, path, row_group_size=4, use_dictionary=False)
    data = bytearray(path.read_bytes())
    at = thrift.field(list(thrift.chunks(thrift.footer(data)))[1], 9)
    header, end = thrift.decoded(data, at)
    # As long as before, so that nothing moves: the statistics make room.
    header[1][2] = 2**31 - 1
    page = thrift.field(header, 5)
    page[:] = [one for one in page if one[0] != 5]
    made = thrift.encoded(header)
    header.append([99, thrift.BINARY, bytes(end - at - len(made) - 5)])
    made = thrift.encoded(header)
    header[-1][2] += bytes(end - at - len(made))
    data[at:end] = thrift.encoded(header)
    path.write_bytes(bytes(data))
    found = list(open_items([str(path)]).read(0))
    assert [item.error is None for item in found] == [True] * 4 + [False] * 4
    assert "says that it unpacks to 2,147,483,647" in found[4].error
    assert most_bytes() < 50 << 20


def damage(path, group, column):
    """Bytes in the middle of a row group's column are others."""
    data = bytearray(path.read_bytes())
    own = [c for c in thrift.chunks(thrift.footer(data)) if thrift.field(c, 3)[1][0] == column]
    start = min(value for number, _, value in own[group] if number in (9, 11))
    size = thrift.field(own[group], 7)
    for at in range(start + 25, start + size):
        data[at] ^= 0xFF
    path.write_bytes(bytes(data))


def test_a_damaged_page_of_captions_costs_its_row_group(tmp_path):
    """In training, counted: another pair is drawn for each."""
    texts = [f"dog {n}" for n in range(12)]
    path = write_parquet(tmp_path / "a.parquet", 12, rows=4, captions=texts)
    damage(path, 1, b"captions")
    pairs = open_pairs(str(path))
    assert [pairs.captions(n) for n in (3, 8, 11)] == [("dog 3",), ("dog 8",), ("dog 11",)]
    assert [item.error is None for item in items_of(pairs)] == [True] * 4 + [False] * 4 + [True] * 4
    with pytest.raises(ValueError, match=r"^a\.parquet: row 5: [^\n]+$"):
        pairs.captions(5)
    for images in (True, False):
        options = {"batch": 12, "seed": 0, "threads": 0, "images": images}
        with Batches(pairs, tokenizer(), PROFILE, max_error_share=0.9, **options) as batches:
            batch = next(batches)
            assert set(batch.index.tolist()) <= {0, 1, 2, 3, 8, 9, 10, 11}
            assert batches.unreadable >= 4
            assert any("a.parquet: row 5: " in reason for reason in batches.bad.values())


def test_rows_that_are_missing_move_no_caption_to_another_image(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", 9, rows=3)
    data = path.read_bytes()
    fields = thrift.footer(data)
    group = thrift.field(fields, 4)[1][1]
    next(one for one in group if one[0] == 3)[2] = 5
    path.write_bytes(thrift.with_footer(data, fields))
    pairs = open_pairs(str(path))
    assert len(pairs) == 11
    assert (pairs[0].captions, pairs[8].captions) == (captions(0), captions(6))
    with pytest.raises(ValueError, match=r"a\.parquet: row 4: column \w+ has 3 of 5 rows$"):
        pairs[4]


def test_what_the_footer_says_is_what_pyarrow_says(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", 9, rows=2)
    data, starts = path.read_bytes(), []
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    for group in (3, 0, 4, 1):
        footer = Footer(lambda at, size: data[at : at + size], len(data), starts)
        (chunk,) = footer.chunks(group, "captions")
        theirs = metadata.row_group(group).column(1)
        assert ".".join(chunk.path) == theirs.path_in_schema
        assert (chunk.start, chunk.values) == (theirs.dictionary_page_offset, theirs.num_values)
        assert chunk.end - chunk.start == theirs.total_compressed_size
        longest = max(len(text) for n in (2 * group, 2 * group + 1) for text in captions(n))
        assert longest <= footer.largest(chunk, all_pages=True) < 10 * longest
    assert len(starts) == 5
