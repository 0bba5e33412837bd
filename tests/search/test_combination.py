"""Several queries as one."""

import numpy as np
import pytest

from siglip_jax.search import combined


def test_is_the_difference_of_mean_similarities():
    rng = np.random.default_rng(0)
    rows, wanted, unwanted = (rng.normal(size=(n, 5)).astype(np.float32) for n in (9, 2, 3))
    near = (rows @ wanted.T).mean(axis=1) - (rows @ unwanted.T).mean(axis=1)
    np.testing.assert_allclose(rows @ combined(wanted, unwanted)[0], near, atol=1e-5)
    np.testing.assert_array_equal(combined(wanted[:1]), wanted[:1])


@pytest.mark.parametrize(
    ("wanted", "unwanted", "message"),
    [
        (np.zeros((0, 3)), np.ones((1, 3)), r"wanted must be of shape \(n, d\), n at least 1"),
        (np.ones(3), [], r"n at least 1, got \(3,\)"),
        (np.ones((1, 3)), np.ones((1, 4)), r"unwanted must be of shape \(m, 3\), got \(1, 4\)"),
        (np.ones((1, 3)), np.ones((2, 3)), "are the same; nothing is left"),
    ],
)
def test_refused(wanted, unwanted, message):
    with pytest.raises(ValueError, match=message):
        combined(wanted, unwanted)
