"""Rows kept as bfloat16 give the answers of the rows as stored."""

import jax
import numpy as np
import pytest
from written_embeddings import written

from siglip_jax.jobs.top_k import TopK
from siglip_jax.programs import make_mesh
from siglip_jax.search import Searcher, open_embeddings
from siglip_jax.search.reranking import HalvedRows


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def found(searcher, queries, k):
    return [[(hit.place, hit.similarity) for hit in hits] for hits in searcher(queries, k)]


def exact(rows, queries, k):
    near = (queries.astype(np.float64) @ np.nan_to_num(rows).astype(np.float64).T).astype("f4")
    near[:, np.isnan(rows[:, 0])] = -np.inf
    order = np.argsort(-near, axis=1, kind="stable")[:, :k]
    return [[(p, n[p]) for p in line if n[p] > -9] for n, line in zip(near, order, strict=True)]


@pytest.mark.parametrize("form", ["npy", "parquet"])
@pytest.mark.parametrize("devices", [1, 4])
def test_rows_that_rounding_confuses(tmp_path, form, devices):
    rng = np.random.default_rng(0)
    # Groups of rows nearer to each other than bfloat16 tells apart, equal rows, and an error.
    centres = rng.normal(size=(40, 1, 32))
    rows = unit((centres + 3e-4 * rng.normal(size=(40, 6, 32))).reshape(-1, 32))
    rows[100], rows[200], rows[7] = rows[3], rows[3], np.nan
    opened = open_embeddings(written(tmp_path / "i", rows, form=form))
    rows = np.delete(rows, 7, axis=0) if form == "npy" else rows
    queries = unit(rng.normal(size=(5, 32)) + rows[[0, 3, 3, 60, 150]])
    mesh = make_mesh(jax.devices()[:devices])
    searcher = Searcher(opened, mesh=mesh, chunk=64, memory=2 * rows.size)
    first = searcher(queries, 4)  # which streams the rows
    assert searcher.resident == "bfloat16"
    assert all(chunk.rows.dtype == "bfloat16" for chunk in searcher._kept.chunks)
    for k in (1, 4, 33, 500):
        expected = exact(rows, queries, k)
        got = found(searcher, queries, k)
        assert [[p for p, _ in line] for line in got] == [[p for p, _ in line] for line in expected]
        assert got == expected
    rounded = rows.astype(jax.numpy.bfloat16).astype(np.float32)
    assert exact(rounded, queries, 4) != exact(rows, queries, 4)
    for line, hits in zip(exact(rows, queries, 4), first, strict=True):
        np.testing.assert_allclose([v for _, v in line], [h.similarity for h in hits], atol=1e-6)


def test_too_many_near_rows_are_streamed(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    rows = unit(1 + 1e-4 * rng.normal(size=(900, 8)))
    searcher = Searcher(open_embeddings(written(tmp_path / "i", rows, shard=900)), memory=2 * 7200)
    searcher(rows[:1], 1)
    read = []
    monkeypatch.setattr(type(searcher.embeddings), "vectors", lambda *_: read.append(1))
    places = [place for place, _ in found(searcher, rows[:2], 2)[0]]
    assert (searcher.resident, read) == ("bfloat16", [])
    near = rows[0].astype(np.float64) @ rows.astype(np.float64).T
    np.testing.assert_allclose(near[places], np.sort(near)[:-3:-1], rtol=0, atol=1e-6)


def test_the_bound_holds_and_is_not_loose():
    rng = np.random.default_rng(2)
    rows, queries = unit(rng.normal(size=(500, 48))), unit(rng.normal(size=(20, 48)))
    halved, top = HalvedRows(), TopK(1, chunk=500)
    halved.add(top.put(rows))
    values, places = top(rows, halved.chunks)  # of every row with the nearest: mostly itself
    true = (rows.astype(np.float64) * rows[places[:, 0]]).sum(axis=1)
    error = halved.error(rows)
    assert (np.abs(values[:, 0] - true) <= error).all()
    assert (error < 2**-8).all() and (halved.error(2 * queries) > 2**-9).all()


@pytest.mark.parametrize(("share", "kept"), [(4, "float32"), (3.9, "bfloat16"), (1.9, None)])
def test_what_fits_is_kept(tmp_path, share, kept):
    rows = unit(np.random.default_rng(3).normal(size=(40, 8)))
    opened = open_embeddings(written(tmp_path / "i", rows))
    searcher = Searcher(opened, memory=int(share * rows.size))
    assert searcher.resident is None
    for _ in range(2):
        assert searcher(rows[5:6], 1)[0][0].row.key == "5.png"
        assert searcher.resident == kept
    half = open_embeddings(written(tmp_path / "h", rows.astype(np.float16)))
    searcher = Searcher(half, memory=int(share * rows.size))
    searcher(rows[:1], 1)
    assert searcher.resident == (None if kept is None else "float16")
