"""Position embeddings resampled as scipy, and so big_vision, does."""

import ml_dtypes
import numpy as np
import pytest

from siglip_jax.weights.posemb import resample_posemb

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# The last four are sizes where the weights of two neighbours differ in the last bit
# according to how they are computed.
RESIZES = [(4, 6), (6, 4), (4, 4), (3, 9), (14, 24), (16, 27), (16, 32), (1, 4), (5, 1)]
RESIZES += [(2, 13), (3, 7), (5, 49), (7, 61)]


@pytest.mark.parametrize(("old", "new"), RESIZES)
def test_resampling_equals_scipy_bit_for_bit(old, new):
    ndimage = pytest.importorskip("scipy.ndimage")
    posemb = np.random.default_rng(old).standard_normal((1, old * old, 64)).astype(np.float32)
    zoomed = ndimage.zoom(posemb.reshape(old, old, 64), (new / old, new / old, 1), order=1)
    ours = resample_posemb(posemb, new * new)
    assert ours.tobytes() == zoomed.reshape(1, new * new, 64).tobytes()


@pytest.mark.parametrize(("old", "new"), [(32, 16), (16, 30), (24, 22), (8, 26)])
def test_sizes_where_scipy_loses_the_edge(old, new):
    posemb = np.random.default_rng(0).standard_normal((1, old * old, 3)).astype(np.float32)
    with pytest.warns(UserWarning, match=f"{old} x {old} to {new} x {new} leaves the last row"):
        ours = resample_posemb(posemb, new * new).reshape(new, new, 3)
    assert not ours[-1].any() and not ours[:, -1].any() and ours[:-1, :-1].all()
    ndimage = pytest.importorskip("scipy.ndimage")
    zoomed = ndimage.zoom(posemb.reshape(old, old, 3), (new / old, new / old, 1), order=1)
    # Equal as numbers: scipy's zeros there carry no sign.
    np.testing.assert_array_equal(ours, zoomed)


def test_resampling_golden():
    # From scipy 1.17.1: zoom of this 3 x 3 grid to 4 x 4, so that a machine without it checks too.
    grid = np.float32([0.1, -2.5, 3.3, 7.7, 0.01, -1, 5, 6, -8]).reshape(1, 9, 1)
    expected = np.float32(
        [
            0.1,
            -1.6333333,
            -0.56666666,
            3.3,
            5.1666665,
            1.1711111,
            -0.40666667,
            0.4333333,
            6.7999997,
            3.6044445,
            0.22666667,
            -3.3333333,
            5.0,
            5.6666665,
            1.3333334,
            -8.0,
        ]
    )
    assert resample_posemb(grid, 16)[0, :, 0].tobytes() == expected.tobytes()


def test_narrow_dtypes_are_resampled_in_float32():
    posemb = np.random.default_rng(0).standard_normal((1, 16, 8)).astype(BFLOAT16)
    ours = resample_posemb(posemb, 25)
    assert ours.dtype == BFLOAT16
    expected = resample_posemb(posemb.astype(np.float32), 25).astype(BFLOAT16)
    assert ours.tobytes() == expected.tobytes()


def test_resampling_needs_squares():
    with pytest.raises(ValueError, match="cannot resample 15 position embeddings to 16"):
        resample_posemb(np.ones((1, 15, 2), np.float32), 16)
