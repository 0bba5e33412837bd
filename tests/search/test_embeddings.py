"""Reading what embed jobs wrote, and exact search in it."""

import json

import command_line
import jax
import numpy as np
import pytest
from job_inputs import pictures

from siglip_jax.data import TextStrings
from siglip_jax.jobs import embed, score
from siglip_jax.programs import make_mesh
from siglip_jax.search import Searcher, open_embeddings, search

pytestmark = pytest.mark.usefixtures("compiled_once")


def exact(rows, queries, k):
    """numpy's answer: places, ties in order, rows of NaN left out."""
    near = queries.astype(np.float64) @ rows.astype(np.float64).T
    order = np.argsort(-np.where(np.isnan(near), -np.inf, near), axis=1, kind="stable")
    good = (~np.isnan(rows[:, 0])).sum()
    return order[:, : min(k, good)], near


@pytest.mark.parametrize("store", ["float32", "float16"])
@pytest.mark.parametrize("form", ["parquet", "npy"])
@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_chunks_and_rows(jobs, expected, form, store, size):
    found = open_embeddings(jobs / f"{form}-{store}")
    keys = [f"{n}.png" for n in range(11)]
    if form == "npy":  # which leaves out what is in error
        expected = expected[~np.isnan(expected[:, 0])]
        keys = [key for n, key in enumerate(keys) if n not in (3, 8)]
    assert (len(found), found.width, found.what) == (len(keys), 24, "images")
    chunks = list(found.chunks(size))
    assert all(len(chunk) == size for chunk in chunks[:-1])
    rows = np.concatenate(chunks)
    assert rows.dtype == store
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-6 if store == "float32" else 1e-3)
    assert [row.key for row in found.rows(range(len(keys)))] == keys
    last = found.rows([len(keys) - 1, 0])
    assert [(row.key, row.shard) for row in last] == [("10.png", 2), ("0.png", 0)]
    with pytest.raises(ValueError, match=f"there is no row {len(keys)}; there are"):
        found.rows([len(keys)])


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("form", ["parquet", "npy"])
@pytest.mark.parametrize("memory", [0, None])
def test_search_is_exact(jobs, form, devices, memory):
    found = open_embeddings([jobs / f"{form}-float32", jobs / f"{form}-float16"])
    rows = np.concatenate([np.asarray(c, np.float32) for c in found.chunks(5)])
    queries = np.nan_to_num(rows)[[0, 5, 2]] + np.float32(0.01)
    mesh = make_mesh(jax.devices()[:devices])
    searcher = Searcher(found, mesh=mesh, chunk=8, memory=memory)
    for k in (1, 4, 100):
        hits = searcher(queries, k)
        assert searcher.resident == (None if memory == 0 else "float32")
        places, near = exact(rows, queries, k)
        for line, own, values in zip(hits, places, near, strict=True):
            got = [hit.place for hit in line]
            assert len(got) == len(own)
            # Sums in another order may swap what differs by less than they do.
            np.testing.assert_allclose(values[got], values[own], rtol=0, atol=1e-5)
            similarities = [hit.similarity for hit in line]
            np.testing.assert_allclose(similarities, values[own], rtol=0, atol=1e-5)
            assert similarities == sorted(similarities, reverse=True)
    assert not {hit.row.key for line in hits for hit in line} & {"3.png", "8.png"}


def test_equal_rows_come_in_their_order(jobs, expected):
    found = open_embeddings(jobs / "parquet-float32")
    hits = search(found, expected[:1], 2, chunk=4)[0]
    assert [hit.row.key for hit in hits] == ["0.png", "10.png"]
    assert hits[0].similarity == hits[1].similarity
    both = open_embeddings([jobs / "parquet-float32", jobs / "npy-float32"])
    hits = search(both, expected[:1], 4)[0]
    assert [(hit.row.folder, hit.row.key) for hit in hits] == [
        (0, "0.png"),
        (0, "10.png"),
        (1, "0.png"),
        (1, "10.png"),
    ]


def test_texts(model, tmp_path):
    texts = ["a cat", "a dog", "two dogs"]
    embed(TextStrings(texts, 2), tmp_path / "t", model=model, what="texts")
    found = open_embeddings(tmp_path / "t")
    assert found.what == "texts"
    hits = search(found, model.scorer().embed_texts(["a dog"]), 1)[0]
    assert (hits[0].row.key, hits[0].row.text) == ("a dog", "a dog")


def test_bad_queries(jobs):
    found = open_embeddings(jobs / "npy-float32")
    with pytest.raises(ValueError, match=r"expected queries of shape \(n, 24\), got \(2, 23\)"):
        search(found, np.zeros((2, 23)), 1)
    with pytest.raises(ValueError, match="k must be an integer"):
        search(found, np.zeros((2, 24)), 0)
    assert search(found, np.zeros((0, 24)), 1) == []


def changed(folder, target, change):
    """A copy of a job whose manifest is changed."""
    import shutil

    shutil.copytree(folder, target)
    manifest = json.loads((target / "manifest.json").read_text())
    change(manifest)
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("weights", "sha256:0", r"m with profile big_vision \(weights differs\)"),
        ("width", 25, r"\(width differs\)"),
        ("profile", {"name": "open_clip"}, r"m with profile open_clip \(profile differs\)"),
    ],
)
def test_spaces_are_not_mixed(jobs, tmp_path, part, value, message):
    def change(manifest):
        manifest["space"][part] = value

    one = jobs / "npy-float32"
    other = changed(one, tmp_path / "other", change)
    with pytest.raises(ValueError, match=f"hold embeddings of different spaces.*{message}") as e:
        open_embeddings([one, other])
    assert "\n" not in str(e.value)


def test_what_cannot_be_opened(jobs, model, tmp_path):
    one = jobs / "npy-float32"
    with pytest.raises(ValueError, match="there is no folder of embeddings"):
        open_embeddings([])
    with pytest.raises(ValueError, match=r"holds no output of a job: there is no manifest\.json"):
        open_embeddings(tmp_path)
    with pytest.raises(ValueError, match="is named twice"):
        open_embeddings([one, jobs / ".." / jobs.name / "npy-float32"])
    texts = changed(one, tmp_path / "texts", lambda m: m["job"].update(what="texts"))
    with pytest.raises(ValueError, match=r"holds images and .* texts; search them one after"):
        open_embeddings([one, texts])
    score(pictures(3), tmp_path / "scores", model=model, labels=["a cat"])
    with pytest.raises(ValueError, match="holds scores, not embeddings; run siglip-jax embed"):
        open_embeddings(tmp_path / "scores")


def test_an_unfinished_job(jobs, tmp_path):
    other = changed(jobs / "parquet-float32", tmp_path / "o", lambda m: None)
    (other / "ledger" / "00001.json").unlink()
    with pytest.raises(ValueError, match="2 of 3 shards are done; run the job to its end, or"):
        open_embeddings(other)
    found = open_embeddings(other, unfinished=True)
    keys = [row.key for row in found.rows(range(len(found)))]
    assert keys == ["0.png", "1.png", "2.png", "3.png", "8.png", "9.png", "10.png"]
    (other / "data" / "00002.parquet").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"00002\.parquet has 5 bytes, the job wrote"):
        open_embeddings(other, unfinished=True)
    (other / "data" / "00002.parquet").unlink()
    with pytest.raises(ValueError, match=r"00002\.parquet is missing, the job wrote"):
        open_embeddings(other, unfinished=True)


def test_pandas_is_not_imported(jobs):
    command_line.shell(
        "-c",
        "import sys\n"
        "from siglip_jax.search import open_embeddings\n"
        f"found = open_embeddings({str(jobs / 'parquet-float16')!r})\n"
        "assert len(list(found.chunks(4))) == 3 and found.rows([0])\n"
        "sys.exit('pandas is imported' if 'pandas' in sys.modules else 0)",
    )
