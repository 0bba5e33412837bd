"""TensorFlow's two bilinear resizes in NumPy, with its rounding.

`tf_resize` is `tf.image.resize(image, size)` cast back to uint8, big_vision's
`resize` (`pp/ops_image.py` at 0127fb6); `tf_antialias_resize` is the same with
`antialias=True` on floats, big_vision's `resize_to_sequence`
(`pp/proj/image_text/ops_naflex.py`). Every step is float32 and in TensorFlow's
order, because a truncating cast turns one rounding error into a grey level.
"""

from typing import NamedTuple

import numpy as np


class Taps(NamedTuple):
    """For each output pixel of one axis: two input pixels and the weight of the second."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray


def bilinear_taps(size: int, out: int) -> Taps:
    """Sampling positions of a half-pixel-centred bilinear resize from `size` to `out`.

    Returns:
      (out,) int64, (out,) int64 and (out,) float32.

    >>> bilinear_taps(4, 2)
    Taps(low=array([0, 2]), high=array([1, 3]), weight=array([0.5, 0.5], dtype=float32))
    """
    scale = np.float32(size) / np.float32(out)
    position = (np.arange(out, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    floor = np.floor(position)
    low = np.maximum(floor, 0).astype(np.int64)
    high = np.minimum(np.ceil(position), size - 1).astype(np.int64)
    return Taps(low, high, position - floor)


def tf_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w, c) uint8 to (height, width, c) uint8, bilinear without antialias.

    Bit for bit what big_vision feeds a model before `value_range`.

    >>> tf_resize(np.array([[[0], [9]]], np.uint8), 1, 1).item()
    4
    """
    y = bilinear_taps(image.shape[0], height)
    x = bilinear_taps(image.shape[1], width)
    weight_y, weight_x = y.weight[:, None, None], x.weight[:, None]

    def lerp_columns(rows: np.ndarray) -> np.ndarray:
        left = rows[:, x.low].astype(np.float32)
        step = rows[:, x.high].astype(np.float32)
        step -= left
        step *= weight_x
        return np.add(left, step, out=left)

    # Rows first, so that columns are gathered from the few rows that are sampled.
    top = lerp_columns(image[y.low])
    step = lerp_columns(image[y.high])
    step -= top
    step *= weight_y
    top += step
    # big_vision: truncated, not rounded. Its clip to 0..255 can change nothing here.
    return top.astype(np.uint8)


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
