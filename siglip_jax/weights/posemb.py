"""Position embeddings for another image resolution, as big_vision resamples them."""

import math
import warnings

import numpy as np


def resample_posemb(posemb: np.ndarray, length: int) -> np.ndarray:
    """A learned position embedding, (1, n, d), on another square grid, (1, length, d).

    Bilinear with corners aligned, without antialiasing: bit for bit the
    `scipy.ndimage.zoom(grid, order=1)` that big_vision calls
    (`models/vit.py`, `resample_posemb`), for float32 and float64. bfloat16 and
    float16 are resampled in float32 and rounded back.

    Raises:
      ValueError: if `n` or `length` is no square.

    >>> resample_posemb(np.float32([[[0], [1], [2], [3]]]), 9)[0, :, 0]
    array([0. , 0.5, 1. , 1. , 1.5, 2. , 2. , 2.5, 3. ], dtype=float32)
    """
    _, n, width = posemb.shape
    old, new = math.isqrt(n), math.isqrt(length)
    if old * old != n or new * new != length:
        raise ValueError(f"cannot resample {n} position embeddings to {length}: not square grids")
    low, high, low_weight, high_weight = _axis(old, new)
    grid = posemb.reshape(old, old, width).astype(np.float64)
    resampled = np.zeros((new, new, width))
    # scipy's order of summation and multiplication, so that the last bit agrees.
    for rows, row_weight in ((low, low_weight), (high, high_weight)):
        for columns, column_weight in ((low, low_weight), (high, high_weight)):
            corner = grid[rows][:, columns]
            resampled += corner * row_weight[:, None, None] * column_weight[None, :, None]
    if posemb.dtype.itemsize < 4:
        resampled = resampled.astype(np.float32)
    return resampled.astype(posemb.dtype).reshape(1, length, width)


def _axis(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For each of `new` positions: its two neighbours among `old`, and their weights."""
    position = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 1.0)
    inside = position <= old - 1
    if not inside.all():
        # big_vision: in these sizes the last position rounds to just past the edge, where
        # scipy's default mode takes zero, so the last row and column are zero.
        warnings.warn(
            f"big_vision's position-embedding resampling from {old} x {old} to {new} x {new} "
            "leaves the last row and column zero (a rounding accident, reproduced here)",
            stacklevel=3,
        )
    low = np.minimum(np.floor(position).astype(int), old - 1)
    low_weight = 1 - (position - low)
    high_weight = 1 - low_weight
    return low, np.minimum(low + 1, old - 1), low_weight * inside, high_weight * inside
