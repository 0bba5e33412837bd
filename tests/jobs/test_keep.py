"""Columns of the source that a job carries along into its files, and on to LanceDB."""

import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_inputs import Told, contents, picture, table
from pair_files import write_tar
from saved_model import saved

import siglip_jax
from siglip_jax.data import Item
from siglip_jax.data.item import Keeping
from siglip_jax.jobs import embed, read_manifest, score
from siglip_jax.search import open_embeddings
from siglip_jax.search.export import export

pytestmark = pytest.mark.usefixtures("compiled_once")
OUT = "memory://kept/out"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


def rows(count=5, first=0):
    """A table of pictures, the third of which is none, with columns of two types."""
    numbers = range(first, first + count)
    return pa.table(
        {
            "image": [b"hello" if n == 2 else picture(n) for n in numbers],
            "key": [f"k{n}" for n in numbers],
            "caption": [f"a dog {n}" for n in numbers],
            "taken": pa.array([None if n == 1 else n for n in numbers], pa.timestamp("us")),
            "tags": pa.array([[str(n)] for n in numbers]),
        }
    )


@pytest.fixture
def parquet(tmp_path):
    (tmp_path / "rows").mkdir()
    pq.write_table(rows(), tmp_path / "rows/a.parquet", row_group_size=2)
    return str(tmp_path / "rows")


KEEP = ["taken", "caption", "tags"]
OPTIONS = {"shard_size": 2, "max_error_share": 0.5}


def same(found, expected=None, names=KEEP):
    """Whether columns of a job are those of the source, types included."""
    expected = rows() if expected is None else expected
    for name in names:
        assert found.column(name).combine_chunks() == expected.column(name).combine_chunks()


def test_rows_of_parquet(model, parquet, tmp_path):
    out = tmp_path / "out"
    assert embed(parquet, out, model=model, keep=KEEP, **OPTIONS).errors == 1
    found = table(out)
    names = ["key", "embedding", "width", "height", *KEEP, "error", "stamp"]
    assert found.column_names == names
    # What cannot be read keeps its columns too.
    assert found.column("error").is_valid().to_pylist() == [False, False, True, False, False]
    same(found)
    types = {"taken": "timestamp[us]", "caption": "string", "tags": "list<element: string>"}
    assert read_manifest(out).job["keep"] == types
    plain = tmp_path / "plain"
    embed(parquet, plain, model=model, **OPTIONS)
    assert found.select(["key", "embedding", "error"]).equals(
        table(plain).select(["key", "embedding", "error"])
    )
    assert "keep" not in read_manifest(plain).job
    assert read_manifest(plain).source["identity"] == read_manifest(out).source["identity"]
    before = contents(out)
    assert embed(parquet, out, model=model, keep=KEEP, **OPTIONS).already
    for folder, keep, said in (
        (out, (), "it keeps taken, caption, tags there and none here; choose another folder"),
        (out, ["tags"], "source's columns it keeps taken, caption, tags there and tags here;"),
        (plain, ["tags"], "it keeps none there and tags here"),
    ):
        with pytest.raises(ValueError, match=said):
            embed(parquet, folder, model=model, keep=keep, **OPTIONS)
    assert contents(out) == before


def test_the_layout_of_clip_retrieval(model, parquet, tmp_path):
    """Its rows have no errors, and its own names for keys and texts."""
    for what, names in (
        ("images", ["image_path", "width", "height", "taken", "caption", "stamp"]),
        ("texts", ["key", "caption", "taken", "stamp"]),
    ):
        keep = ["taken", "caption"] if what == "images" else ["taken"]
        options = OPTIONS | {"what": what, "format": "npy", "model": model, "keep": keep}
        embed(parquet, tmp_path / what, **options)
        found = pq.read_table(tmp_path / what / "metadata")
        assert found.column_names == names
        whole = rows()
        same(found, whole.filter([n != 2 for n in range(5)]) if what == "images" else whole, keep)
    index = open_embeddings(tmp_path / "images")
    # A caption that is kept is no text that was embedded.
    assert [row.text for row in index.rows([0, 3])] == [None, None]
    assert index.kept([3]) == [{"taken": rows()["taken"][4].as_py(), "caption": "a dog 4"}]
    texts = open_embeddings(tmp_path / "texts")
    assert texts.rows([4])[0].text == "a dog 4"


def test_scores(model, parquet, tmp_path):
    score(parquet, tmp_path / "out", model=model, labels=["a", "b"], keep=KEEP, **OPTIONS)
    same(table(tmp_path / "out"))
    score(parquet, tmp_path / "pairs", model=model, pairs=True, keep=["tags"], **OPTIONS)
    same(table(tmp_path / "pairs"), names=["tags"])


def test_a_bucket_and_parts(model, parquet, tmp_path):
    embed(parquet, tmp_path / "whole", model=model, keep=KEEP, **OPTIONS)
    memory = fsspec.filesystem("memory")
    try:
        for number in (3, 1, 2):
            embed(parquet, OUT, model=model, keep=KEEP, part=(number, 3), **OPTIONS)
        files = [memory.cat_file(name) for name in sorted(memory.find("/kept/out/data"))]
        paths = sorted((tmp_path / "whole/data").iterdir())
        assert files == [path.read_bytes() for path in paths]
        assert open_embeddings(OUT).kept([0])[0]["caption"] == "a dog 0"
    finally:
        memory.rm("/kept", recursive=True)


def test_updates(model, parquet, tmp_path):
    options = OPTIONS | {"model": model, "keep": KEEP, "update": True}
    embed(parquet, tmp_path / "out", **options)
    pq.write_table(rows(3, 10), tmp_path / "rows/b.parquet")
    assert embed(parquet, tmp_path / "out", **options).run["items"] == 3
    same(table(tmp_path / "out"), pa.concat_tables([rows(), rows(3, 10)]))
    other = rows(3, 20).set_column(3, "taken", pa.array(range(3)))
    pq.write_table(other, tmp_path / "rows/b.parquet")
    with pytest.raises(
        ValueError, match=r"column taken holds int64, and in .*write it in one type"
    ):
        embed(parquet, tmp_path / "out", **options)
    (tmp_path / "rows/a.parquet").unlink()
    with pytest.raises(ValueError, match=r"keeps taken \(timestamp.* and taken \(int64\), caption"):
        embed(parquet, tmp_path / "out", **options)


def test_an_update_sees_what_is_kept(model, tmp_path):
    """Of a table it is compared row by row: the image alone does not tell."""
    (tmp_path / "0.png").write_bytes(picture(0))
    (tmp_path / "1.png").write_bytes(picture(1))
    options = {"model": model, "keep": ["alt"], "update": True, "image_column": "file"}
    for alts, done in ((["a", "b"], 2), (["a", "c"], 1)):
        lines = [f"{n}.png,{alt}" for n, alt in enumerate(alts)]
        (tmp_path / "t.csv").write_text("\n".join(["file,alt", *lines]) + "\n")
        result = embed(str(tmp_path / "t.csv"), tmp_path / "out", **options)
        assert result.run["items"] == done
        found = table(tmp_path / "out").select(["key", "alt"]).to_pylist()
        assert {row["key"]: row["alt"] for row in found} == {
            f"{n}.png": alt for n, alt in enumerate(alts)
        }


def test_fields_of_tars_become_columns_of_lance(model, tmp_path):
    lancedb = pytest.importorskip("lancedb", reason="needs: pip install lancedb")
    members = []
    for n in range(4):
        fields = {"url": f"http://{n}", "similarity": n / 4, "caption": f"dog {n}"}
        members += [(f"{n}.jpg", picture(n)), (f"{n}.json", json.dumps(fields).encode())]
    source = str(write_tar(tmp_path / "a.tar", members))
    keep = ["url", "similarity", "caption"]
    for form in ("parquet", "npy"):
        embed(source, tmp_path / form, model=model, keep=keep, format=form)
        found = open_embeddings(tmp_path / form)
        assert export(found, "lance", tmp_path / f"{form}.lance") == 4
        opened = lancedb.connect(tmp_path / f"{form}.lance").open_table("embeddings")
        assert [*opened.schema.names[:2], *opened.schema.names[-3:]] == ["key", "vector", *keep]
        search = opened.search(next(found.chunks(1))[0])
        asked = search.where("cast(similarity as double) > 0.3 and caption != 'dog 3'")
        assert [hit["url"] for hit in asked.to_list()] == ["http://2"]


class Own(Told):
    """A source of one's own, which says itself what its items keep."""

    def kept(self):
        return {"n": pa.int16()}


def test_a_source_of_ones_own(model, tmp_path):
    source = Own([Item(f"{n}.png", picture(n), kept={"n": n} if n else None) for n in range(3)])
    assert isinstance(source, Keeping)
    embed(source, tmp_path / "out", model=model)
    found = table(tmp_path / "out").column("n").combine_chunks()
    assert found.equals(pa.array([None, 1, 2], pa.int16()))
    with pytest.raises(ValueError, match="a Own says itself what its items keep; leave out keep"):
        embed(source, tmp_path / "other", model=model, keep=["n"])


@pytest.mark.parametrize(
    ("keep", "options", "message"),
    [
        (["width"], {}, r"^width: a job has a column of this name itself; leave it out of keep$"),
        (["error", "tags", "stamp"], {}, "^error and stamp: a job has columns of these names"),
        (["vector"], {"what": "texts"}, "^vector: a job has"),
        (["text"], {"what": "texts"}, "^text: a job has a column of this name itself"),
        (["caption"], {"what": "texts", "format": "npy"}, "^caption: a job has a column"),
    ],
)
def test_names_that_a_job_has_itself(model, tmp_path, keep, options, message):
    more = {name: ["x"] * 5 for name in keep if name != "caption"}
    made = rows()
    for name, values in more.items():
        made = made.append_column(name, pa.array(values)) if name != "tags" else made
    pq.write_table(made, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        embed(str(tmp_path / "a.parquet"), tmp_path / "out", model=model, keep=keep, **options)
    assert not (tmp_path / "out").exists()


def test_a_text_may_be_kept_of_images(model, tmp_path):
    pq.write_table(rows().rename_columns({"caption": "text"}), tmp_path / "a.parquet")
    embed(str(tmp_path / "a.parquet"), tmp_path / "out", model=model, keep=["text"], **OPTIONS)
    index = open_embeddings(tmp_path / "out")
    assert (index.rows([0])[0].text, index.kept([0])) == (None, [{"text": "a dog 0"}])
