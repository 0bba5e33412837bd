"""Arrow files, and what a source has beside images and texts."""

import pickle

import pyarrow
import pyarrow.ipc
import pytest
from pair_files import captions, png, samples, write_parquet, write_tar

from siglip_jax.data import open_items, open_pairs

COUNT = 7


def write_arrow(path, **more):
    columns = {
        "image": [{"bytes": image, "path": None} for _, image, _ in samples(COUNT)],
        "captions": [list(texts) for _, _, texts in samples(COUNT)],
        "label": list(range(COUNT)),
    }
    table = pyarrow.table(columns | more)
    with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return path


def read(source):
    return [item for shard in range(len(source.shards())) for item in source.read(shard)]


def test_items_and_pairs(tmp_path):
    write_arrow(tmp_path / "data-00000-of-00001.arrow")
    (tmp_path / "state.json").write_text("{}")
    source = open_items([str(tmp_path)], shard_size=4)
    assert [shard.items for shard in source.shards()] == [4, 3]
    items = read(source)
    assert [item.image for item in items] == [png(n) for n in range(COUNT)]
    assert [item.text for item in items] == [captions(n)[0] for n in range(COUNT)]
    assert items[5].key == "data-00000-of-00001.arrow:5"
    texts = read(open_items([str(tmp_path)], only="texts"))
    assert [item.text for item in texts] == [text for n in range(COUNT) for text in captions(n)]
    pairs = pickle.loads(pickle.dumps(open_pairs(str(tmp_path))))
    assert len(pairs) == COUNT
    assert pairs[4] == (items[4].key, png(4), captions(4))


def test_a_column_of_keys(tmp_path):
    write_arrow(tmp_path / "a.arrow", key=[f"k{n}" for n in range(COUNT)])
    source = open_items([str(tmp_path / "a.arrow")], only="images")
    assert [item.key for item in read(source)] == [f"k{n}" for n in range(COUNT)]
    assert list(source.values("label")) == [(f"k{n}", n) for n in range(COUNT)]


def test_keys_that_are_missing_or_there_twice(tmp_path):
    write_arrow(tmp_path / "a.arrow", key=["a", "b", "a", *"defg"])
    with pytest.raises(ValueError, match=r"a\.arrow: 'a' is 2 times in column key"):
        open_items([str(tmp_path / "a.arrow")])
    write_arrow(tmp_path / "b.arrow", key=["a", None, *"cdefg"])
    with pytest.raises(ValueError, match=r"b\.arrow: row 1 has no key in column key"):
        open_items([str(tmp_path / "b.arrow")])


def test_offsets_that_lead_out_of_the_file(tmp_path):
    """Followed, they end the process."""
    whole = write_arrow(tmp_path / "a.arrow", key=[f"key{n}" for n in range(COUNT)]).read_bytes()
    ends = b"".join(n.to_bytes(4, "little") for n in (0, 4, 8, 12))  # of the first three keys
    assert whole.count(ends) == 2  # batches of three rows
    far = ends[:8] + b"\xff\xff\xff\x70" + ends[12:]
    (tmp_path / "b.arrow").write_bytes(whole.replace(ends, far, 1))
    with pytest.raises(ValueError, match=r"b\.arrow: cannot be read: "):
        open_items([str(tmp_path / "b.arrow")])


def test_a_name_of_a_column_that_is_no_text(tmp_path):
    whole = write_arrow(tmp_path / "a.arrow").read_bytes()
    (tmp_path / "b.arrow").write_bytes(whole.replace(b"captions", b"\xffaptions"))
    with pytest.raises(ValueError, match=r"b\.arrow: cannot be read: 'utf-8' codec"):
        open_items([str(tmp_path / "b.arrow")])


def test_what_is_no_arrow_file(tmp_path):
    (tmp_path / "a.arrow").write_bytes(b"hello" * 100)
    with pytest.raises(ValueError, match=r"a\.arrow: cannot be read: "):
        open_items([str(tmp_path / "a.arrow")])


def test_values_of_tars_have_the_keys_of_the_items(tmp_path):
    """Of a key that is there twice, of several images of a key, and of none."""
    members = [
        ("a.png", png(0)),
        ("a.cls", b"3"),
        ("b.left.png", png(1)),
        ("b.right.png", png(2)),
        ("b.cls", b"4"),
        ("._a.png", b"x"),
        ("a.png", png(3)),
        ("c.png", png(4)),
        ("c.cls", b"5"),
    ]
    write_tar(tmp_path / "0.tar", members)
    source = open_items([str(tmp_path / "0.tar")], only="images")
    values = dict(source.values("cls"))
    assert list(values) == [item.key for item in read(source)]
    assert list(values.values()) == [b"3", b"4", b"4", None, b"5"]


def test_values_of_parquet(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", label=list(range(COUNT)))
    source = open_items([str(path)], only="images")
    assert list(source.values("label")) == [(f"a.parquet:{n}", n) for n in range(COUNT)]
    with pytest.raises(ValueError, match=r"a.parquet: no column lable; did you mean label\?"):
        list(source.values("lable"))
