"""TensorFlow's two bilinear resizes in NumPy, with its rounding.

`tf_resize` is `tf.image.resize(image, size)` cast back to uint8, big_vision's
`resize` (`pp/ops_image.py` at 0127fb6); `tf_antialias_resize` is the same with
`antialias=True` on floats, big_vision's `resize_to_sequence`
(`pp/proj/image_text/ops_naflex.py`). Every step is float32 and in TensorFlow's
order, because a truncating cast turns one rounding error into a grey level.
"""

import functools
from typing import NamedTuple

import numpy as np

# Numbers in a block of rows: 1 MB of float32, of which two are in use at a time. Smaller blocks
# are no faster, and after each call NumPy has to get Python's lock back from other threads.
_BLOCK = 2**18


class Taps(NamedTuple):
    """For each output pixel of one axis: two input pixels and the weight of the second."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray


@functools.lru_cache(256)
def bilinear_taps(size: int, out: int) -> Taps:
    """Sampling positions of a half-pixel-centred bilinear resize from `size` to `out`.

    Returns:
      (out,) int64, (out,) int64 and (out,) float32, to be read only: the next caller with
      the same sizes gets the same arrays.

    >>> bilinear_taps(4, 2)
    Taps(low=array([0, 2]), high=array([1, 3]), weight=array([0.5, 0.5], dtype=float32))
    """
    scale = np.float32(size) / np.float32(out)
    position = (np.arange(out, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    floor = np.floor(position)
    low = np.maximum(floor, 0).astype(np.int64)
    high = np.minimum(np.ceil(position), size - 1).astype(np.int64)
    taps = Taps(low, high, position - floor)
    for array in taps:
        array.flags.writeable = False
    return taps


def tf_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w, c) uint8 to (height, width, c) uint8, bilinear without antialias.

    Bit for bit what big_vision feeds a model before `value_range`.

    >>> tf_resize(np.array([[[0], [9]]], np.uint8), 1, 1).item()
    4
    """
    channels = image.shape[2]
    y, x = bilinear_taps(image.shape[0], height), _byte_taps(image.shape[1], width, channels)
    rows = np.ascontiguousarray(image).reshape(len(image), -1)
    out = np.empty((height, width * channels), np.uint8)
    # A block of rows at a time, so that what is between two steps stays in the cache.
    step = max(1, _BLOCK // out.shape[1])
    for start in range(0, height, step):
        block = slice(start, start + step)
        # big_vision: truncated, not rounded. Its clip to 0..255 can change nothing here.
        out[block] = _blend(rows, Taps(*(each[block] for each in y)), x)
    return out.reshape(height, width, channels)


@functools.lru_cache(64)
def _byte_taps(size: int, out: int, channels: int) -> Taps:
    """`bilinear_taps` of the bytes of a row: one index a byte is faster than one a pixel."""
    low, high, weight = bilinear_taps(size, out)
    low, high = ((tap[:, None] * channels + np.arange(channels)).ravel() for tap in (low, high))
    return Taps(low, high, np.repeat(weight, channels))


def _blend(rows: np.ndarray, y: Taps, x: Taps) -> np.ndarray:
    """(h, bytes) uint8 to (rows of `y`, bytes of `x`) float32, across before down."""
    first, last = y.low[0], y.high[-1] + 1
    dense = last - first < 2 * len(y.low)
    # Otherwise there are more rows than are looked at, and some need not be blended.
    rows = rows[first:last] if dense else rows[np.concatenate([y.low, y.high])]
    # mode="clip" spares a check of every index; none is outside.
    low = rows.take(x.low, 1, mode="clip")
    # Differences of bytes are exact in either type; one conversion does for both sides.
    across = np.subtract(rows.take(x.high, 1, mode="clip"), low, dtype=np.int16) * x.weight
    across += low
    if dense:
        blended, step = (across.take(row - first, 0, mode="clip") for row in (y.low, y.high))
    else:
        blended, step = across[: len(y.low)], across[len(y.low) :]
    step -= blended
    step *= y.weight[:, None]
    blended += step
    return blended


def _antialias_taps(size: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Input pixels (out, span) int64 and their weights (out, span) float32 of one axis.

    A triangle filter, widened by the reduction where the axis shrinks.
    """
    scale = np.float32(out) / np.float32(size)
    inverse = np.float32(1) / scale
    kernel = np.maximum(inverse, np.float32(1))
    half = np.float32(0.5)
    sample = (np.arange(out, dtype=np.float32) + half) * inverse
    first = np.clip(np.ceil(sample - kernel - half), 0, size - 1).astype(np.int64)
    last = np.clip(np.floor(sample + kernel - half), 0, size - 1).astype(np.int64)
    pixel = first[:, None] + np.arange(int((last - first).max()) + 1)
    distance = pixel.astype(np.float32) + half - sample[:, None]
    weight = np.maximum(0, 1 - np.abs(distance * (np.float32(1) / kernel)))
    weight[pixel > last[:, None]] = 0
    total = np.zeros(out, np.float32)
    for column in weight.T:  # In sequence, as TensorFlow sums; NumPy would pair.
        total += column
    return np.minimum(pixel, size - 1), weight * (np.float32(1) / total)[:, None]


def tf_antialias_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w, c) float32 to (height, width, c) float32, antialiased bilinear.

    Not rounded and not clipped. Follows TensorFlow's `ScaleAndTranslate` kernel:
    rows first, then columns, adding one pixel of the span after the other.
    """
    if image.dtype != np.float32:
        raise ValueError(f"expected float32 pixels, got {image.dtype}")
    for axis, out in enumerate((height, width)):
        if image.shape[axis] == out:
            continue  # The weights would be exactly 0 and 1.
        pixels, weights = _antialias_taps(image.shape[axis], out)
        shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
        total = np.zeros([out if a == axis else n for a, n in enumerate(image.shape)], np.float32)
        for pixel, weight in zip(pixels.T, weights.T, strict=True):
            term = image.take(pixel, axis=axis)
            term *= weight.reshape(shape)
            total += term
        image = total
    return image
