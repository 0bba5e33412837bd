"""Groups of near rows, beside all pairs by NumPy."""

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from written_embeddings import written

from siglip_jax.search import duplicates, open_embeddings


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_numpy(rows, threshold):
    near = np.nan_to_num(rows.astype(np.float64)) @ np.nan_to_num(rows.astype(np.float64)).T
    assert (np.abs(near[np.triu_indices(len(rows), 1)] - threshold) > 1e-6).all()
    labels = connected_components(near >= threshold)[1]
    groups = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    groups = [group for group in groups if len(group) > 1]
    return sorted(groups, key=lambda group: (-len(group), group[0]))


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    # Chains of rows, each near the next, that lie far apart in the files.
    steps = np.cumsum(rng.normal(size=(9, 12, 16)) * 0.17, axis=1)
    made = unit((rng.normal(size=(9, 1, 16)) + steps).reshape(-1, 16))[rng.permutation(108)]
    made[20], made[90], made[50] = made[4], made[4], np.nan
    return made


@pytest.mark.parametrize("form", ["npy", "parquet"])
@pytest.mark.parametrize("block", [7, 40, 4096])
def test_equals_all_pairs(tmp_path, rows, form, block):
    opened = open_embeddings(written(tmp_path / "i", rows, form=form))
    kept = np.delete(rows, 50, axis=0) if form == "npy" else rows
    seen = []
    for threshold in (0.9, 0.98, 0.9999):
        expected = by_numpy(kept, threshold)
        groups = duplicates(opened, threshold, block=block, progress=lambda *n: seen.append(n))
        assert [[hit.place for hit in group] for group in groups] == expected
        for group in groups:
            first = kept[group[0].place].astype(np.float64)
            near = [float(first @ kept[hit.place]) for hit in group]
            np.testing.assert_allclose([hit.similarity for hit in group], near, atol=1e-6)
            keys = [f"{hit.place + (form == 'npy' and hit.place >= 50)}.png" for hit in group]
            assert [hit.row.key for hit in group] == keys
        assert seen[-1][0] == seen[-1][1] == len(seen)
        seen.clear()
    assert expected == [[4, 20, 89 if form == "npy" else 90]]
    # A chain is one group, though its ends are less alike than the threshold.
    assert min(h.similarity for group in duplicates(opened, 0.9) for h in group) < 0.9


def test_all_rows_alike(tmp_path):
    opened = open_embeddings(written(tmp_path / "i", unit(np.ones((40, 3), np.float32))))
    (group,) = duplicates(opened, 0.999, block=8)
    assert [hit.place for hit in group] == list(range(40))


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 95, float("nan")])
def test_refused(tmp_path, rows, threshold):
    opened = open_embeddings(written(tmp_path / "i", rows))
    with pytest.raises(ValueError, match=r"threshold must lie between 0 and 1, such as 0\.95"):
        duplicates(opened, threshold)
