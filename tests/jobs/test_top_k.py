"""Exact nearest rows by chunks, beside numpy's."""

import functools
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siglip_jax.jobs.top_k import TopK, cut
from siglip_jax.programs import make_mesh


def by_numpy(queries, rows, k):
    near = np.where(np.isnan(rows).any(1), -np.inf, queries @ np.nan_to_num(rows).T)
    order = np.argsort(-near, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(near, order, axis=1), order


def small(rng, n, d=4):
    """Rows of small whole numbers: products are exact, and many are equal."""
    return rng.integers(-2, 3, (n, d)).astype(np.float32)


@functools.cache
def five(devices):
    """Kept, so that it compiles once."""
    return TopK(5, chunk=16, mesh=make_mesh(jax.devices()[:devices]))


@pytest.mark.parametrize("devices", [1, 4, 8])
@settings(max_examples=8, deadline=None)
@given(rows=st.integers(1, 70), seed=st.integers(0, 9))
def test_equals_numpy_ties_and_all(devices, rows, seed):
    rng = np.random.default_rng(seed)
    table, queries = small(rng, rows), small(rng, 3)
    values, places = five(devices)(queries, cut(table, 16))
    expected, order = by_numpy(queries, table, 5)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(places, order)
    assert places.dtype == np.int64 and values.dtype == np.float32


@pytest.mark.parametrize(("rows", "k", "queries"), [(4096, 10, 3), (1300, 2, 600), (512, 8, 257)])
@pytest.mark.parametrize("devices", [1, 2])
def test_groups_and_blocks_of_queries_equal_numpy(devices, rows, k, queries):
    """Many chunks of many groups, ties in and between them, rows of NaN; 1,024 is 16 groups."""
    rng = np.random.default_rng(rows)
    table, asked = small(rng, rows, 3), small(rng, queries, 3)
    table[rng.integers(0, rows, rows // 9)] = np.nan
    nearest = TopK(k, chunk=1024, mesh=make_mesh(jax.devices()[:devices]))
    values, places = nearest(asked, cut(table, 1024))
    expected, order = by_numpy(asked, table, k)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(places, order)


def test_chunks_may_differ_in_length_and_stay_on_the_devices():
    rng = np.random.default_rng(0)
    table, queries = rng.normal(size=(50, 6)).astype(np.float32), rng.normal(size=(4, 6))
    nearest = TopK(7, chunk=20, mesh=make_mesh(jax.devices()[:2], model=2))
    bounds = [0, 3, 23, 24, 44, 50]
    chunks = [nearest.put(table[a:b]) for a, b in itertools.pairwise(bounds)]
    assert chunks[1].rows.shape == (2, 10, 6) and not chunks[1].rows.is_fully_replicated
    _, order = by_numpy(queries.astype(np.float32), table, 7)
    for _ in range(2):
        np.testing.assert_array_equal(nearest(queries, chunks)[1], order)


def test_rows_of_nan_and_half_precision():
    rows = np.float16([[1, 0], [np.nan, np.nan], [0, 1]])
    values, places = TopK(3, chunk=4)(np.float32([[1, 0.5]]), [rows])
    np.testing.assert_array_equal(values, [[1, 0.5, -np.inf]])
    np.testing.assert_array_equal(places, [[0, 2, -1]])


def test_more_are_asked_for_than_there_are():
    values, places = TopK(9, chunk=2)(np.float32([[1.0]]), [np.float32([[1], [3]])] * 2)
    assert values.tolist() == [[3, 3, 1, 1]] and places.tolist() == [[1, 3, 0, 2]]


def test_nothing_as_large_as_the_set_is_made():
    nearest = TopK(3, chunk=64, mesh=make_mesh(jax.devices()))
    chunk = nearest.put(np.zeros((64, 4), np.float32))
    state = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int32)
    step = nearest._step.lower(np.zeros((2, 4), np.float32), chunk.rows, 0, 64, *state)
    assert "-> tensor<2x64xf32>" in step.as_text()  # a matmul of matrices, which CPUs do quickly
    text = step.compile().as_text()
    assert "f32[8,64" not in text and "f32[2,64]" not in text
    assert "all-gather" in text  # of the best of each part


@pytest.mark.parametrize(("k", "chunk"), [(0, 4), (1, 0), (1.0, 4)])
def test_refused(k, chunk):
    with pytest.raises(ValueError, match="must be an integer of at least 1, got "):
        TopK(k, chunk=chunk)


def test_too_many_rows_for_a_chunk():
    with pytest.raises(ValueError, match=r"expected up to 4 rows \(m, d\), got shape \(5, 1\)"):
        TopK(1, chunk=4).put(np.zeros((5, 1), np.float32))
