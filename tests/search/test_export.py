"""Embeddings for other programs, and contact sheets."""

import json
import sys

import fsspec
import numpy as np
import pytest
from job_inputs import picture
from PIL import Image

from siglip_jax.jobs.ledger import read_entries
from siglip_jax.search import open_embeddings
from siglip_jax.search.export import export
from siglip_jax.search.sheet import Shown, write_sheet

pytestmark = pytest.mark.usefixtures("compiled_once")
KEYS = [f"{n}.png" for n in range(11) if n not in (3, 8)]


def test_npy(jobs, expected, tmp_path):
    found = open_embeddings(jobs / "parquet-float32")
    assert export(found, "npy", tmp_path / "x.npy") == 9
    rows = np.load(tmp_path / "x.npy")
    np.testing.assert_allclose(rows, expected[~np.isnan(expected[:, 0])], rtol=0, atol=1e-6)
    assert (tmp_path / "x.npy.keys.txt").read_text().splitlines() == KEYS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "x.npy.keys.txt"]


def test_faiss_and_usearch_find_what_we_find(jobs, expected, tmp_path):
    faiss, usearch = pytest.importorskip("faiss"), pytest.importorskip("usearch.index")
    found = open_embeddings(jobs / "npy-float32")
    query = expected[5] + np.float32(0.02)
    near = np.nan_to_num(expected, nan=-9) @ query
    order = [f"{n}.png" for n in np.argsort(-near, kind="stable")[:3]]
    for form in ("faiss", "usearch"):
        path = tmp_path / f"x.{form}"
        assert export(found, form, path) == 9
        keys = (tmp_path / f"x.{form}.keys.txt").read_text().splitlines()
        assert keys == KEYS
        if form == "faiss":
            _, places = faiss.read_index(str(path)).search(query[None], 3)
            places = places[0]
        else:
            places = usearch.Index.restore(str(path)).search(query, 3).keys
        assert [keys[int(place)] for place in places] == order


@pytest.mark.parametrize("name", ["parquet-float32", "npy-float16"])
def test_a_lance_table_has_the_columns_to_filter_by(jobs, expected, tmp_path, name):
    lancedb = pytest.importorskip("lancedb", reason="needs: pip install lancedb")
    (tmp_path / "x.lance").mkdir()  # gives way as a whole
    found = open_embeddings(jobs / name)
    assert export(found, "lance", tmp_path / "x.lance") == 9
    assert [path.name for path in tmp_path.iterdir()] == ["x.lance"]
    table = lancedb.connect(tmp_path / "x.lance").open_table("embeddings")
    assert table.schema.names[:2] == ["key", "vector"]
    assert not {"error", "stamp", "image_path"} & set(table.schema.names)
    rows = table.to_arrow().to_pylist()
    assert [row["key"] for row in rows] == KEYS
    query = expected[5] + np.float32(0.02)
    good = [n for n in np.argsort(-np.nan_to_num(expected, nan=-9) @ query, kind="stable")]
    hits = table.search(query).distance_type("dot").limit(3).to_list()
    assert [hit["key"] for hit in hits] == [f"{n}.png" for n in good[:3]]
    # Without the nearest, by its own columns.
    width = hits[0]["width"]
    assert width == {row["key"]: row for row in rows}[hits[0]["key"]]["width"]
    search = table.search(query).distance_type("dot").where(f"width != {width}", prefilter=True)
    left = [f"{n}.png" for n in good if f"{n}.png" in KEYS]
    kept = [key for key in left if {r["key"]: r["width"] for r in rows}[key] != width]
    assert [hit["key"] for hit in search.limit(2).to_list()] == kept[:2]


def test_folders_with_other_columns_make_one_table(jobs, tmp_path):
    lancedb = pytest.importorskip("lancedb", reason="needs: pip install lancedb")
    found = open_embeddings([jobs / "parquet-float32", jobs / "npy-float32"])
    assert export(found, "lance", tmp_path / "both") == 18
    table = lancedb.connect(tmp_path / "both").open_table("embeddings").to_arrow()
    assert table["key"].to_pylist() == KEYS * 2


def test_what_cannot_be_exported(jobs, tmp_path, monkeypatch):
    found = open_embeddings(jobs / "npy-float32")
    with pytest.raises(ValueError, match="form must be one of faiss, usearch, npy, lance, got"):
        export(found, "x", tmp_path / "x")
    for form, module, package in (
        ("faiss", "faiss", "faiss-cpu"),
        ("usearch", "usearch", "usearch"),
        ("lance", "lancedb", "lancedb"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ValueError, match=f"{package} is not installed.*; pip install "):
            export(found, form, tmp_path / "x")
    monkeypatch.setattr(type(found), "rows", lambda self, places: [Shown("a\nb", "")] * len(places))
    with pytest.raises(ValueError, match="has a line break; it cannot be exported"):
        export(found, "npy", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


SHOWN = [
    ("a <dog>", [Shown("0.png", "0.9", picture(0)), Shown("x/<b>.png", "0.8", None)]),
    ("a cat", [Shown(f"{n}.jpg", "0.5", b"damaged", None) for n in range(7)]),
    ("texts", [Shown("t:1", "0.4", None, "a text & more")]),
    ("nothing", []),
]


def test_a_page(tmp_path):
    write_sheet(tmp_path / "s.html", SHOWN)
    page = (tmp_path / "s.html").read_text()
    assert page.count("<img src=") == 1 and "data:image/jpeg;base64," in page
    assert page.count("<p>") == 9
    for text in ("a &lt;dog&gt;", "x/&lt;b&gt;.png", "a text &amp; more", "6.jpg"):
        assert text in page
    assert "<dog>" not in page and "<b>" not in page


def test_a_picture(tmp_path):
    write_sheet(tmp_path / "s.png", SHOWN)
    with Image.open(tmp_path / "s.png") as sheet:
        pixels = np.asarray(sheet)
    assert sheet.width == 12 + 6 * 188
    with Image.open(tmp_path / "s.png") as sheet:
        grey = (np.asarray(sheet) == 0xEE).all(-1).sum()
    # Nine fields without a picture, all but the words in them.
    assert 9 * 176 * 176 * 0.7 < grey < 9 * 176 * 176
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_where_no_sheet_can_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"a sheet must end in \.png or \.html, got .*s\.jpg"):
        write_sheet(tmp_path / "s.jpg", SHOWN)
    with pytest.raises(ValueError, match=r"the folder .*x does not exist"):
        write_sheet(tmp_path / "x" / "s.png", SHOWN)


def test_a_folder_of_something_else_is_left_alone(jobs, tmp_path):
    """A folder gives way as a whole, so that a slip of the name would cost what is in it."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"a")
    (tmp_path / "file").write_bytes(b"b")
    for name, what in (("photos", "a.jpg"), ("file", "file")):
        with pytest.raises(ValueError, match=f"holds something else than such a table, as {what}"):
            export(open_embeddings(jobs / "parquet-float32"), "lance", tmp_path / name)
    assert (tmp_path / "photos/a.jpg").read_bytes() == b"a"
    assert (tmp_path / "file").read_bytes() == b"b"


def test_a_lance_table_of_a_bucket(jobs, tmp_path):
    lancedb = pytest.importorskip("lancedb", reason="needs: pip install lancedb")
    bucket = fsspec.filesystem("memory")
    bucket.put(str(jobs / "parquet-float32"), "/exported", recursive=True)
    entries = [entry._asdict() for entry in read_entries(jobs / "parquet-float32")]
    bucket.pipe_file("/exported/ledger/00000-00255.json", json.dumps(entries).encode())
    try:
        found = open_embeddings("memory://exported")
        assert export(found, "lance", tmp_path / "x.lance") == 9
    finally:
        bucket.store.clear()
        bucket.pseudo_dirs[:] = [""]
    table = lancedb.connect(tmp_path / "x.lance").open_table("embeddings").to_arrow()
    assert table.column("key").to_pylist() == KEYS
