"""torchvision's antialiased resizes of uint8 images, bit for bit, without torch.

Follows PyTorch's kernel for bytes (`aten/src/ATen/native/cpu/UpSampleKernelAVXAntialias.h`
of 2.14), which is what torchvision runs on a CPU with AVX2 or NEON: Pillow's method, across
before down, with weights of 16 bits where Pillow's have 22. (Elsewhere, on a GPU for
instance, it computes in floats, and one pixel in a hundred falls one grey level apart.)
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from siglip_jax.preprocessing.pixels import Pixels, array_of, size_of

# Bytes of a row that are computed at a time, so that their sums stay in the cache.
_CHUNK = 512
# The most bits of a weight behind the point, and what a weight must stay below.
_BITS, _LIMIT = 22, 1 << 15

Weights = np.ndarray[Any, np.dtype[np.float64]]


def _bilinear(x: Weights) -> Weights:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _bicubic(x: Weights) -> Weights:
    x, a = np.abs(x), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: Weights) -> Weights:
    return np.where(np.abs(x) < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)


# Each filter and half the input pixels it spans where nothing shrinks.
_FILTERS: dict[str, tuple[Callable[[Weights], Weights], float]] = {
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}


@functools.lru_cache(64)
def integer_weights(size: int, out: int, method: str) -> tuple[np.ndarray, Weights, int]:
    """For each output pixel of one axis the first input pixel, and the weights from there on.

    Returns:
      (out,) int64; (out, span) float64 that hold integers; how many bits of them are behind
      the point.

    >>> first, weights, bits = integer_weights(4, 2, "bilinear")
    >>> first.tolist(), (weights / 2**bits).round(3).tolist()
    ([0, 1], [[0.429, 0.429, 0.143], [0.143, 0.429, 0.429]])
    """
    kernel, reach = _FILTERS[method]
    scale = size / out
    shrink = max(scale, 1.0)
    centre = scale * (np.arange(out) + 0.5)
    first = np.maximum((centre - reach * shrink + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + reach * shrink + 0.5).astype(np.int64), size) - first
    step = np.arange(int(count.max()))
    weights = kernel((step + first[:, None] - centre[:, None] + 0.5) * (1.0 / shrink))
    weights[step >= count[:, None]] = 0.0
    total = np.zeros(out)
    for column in weights.T:  # in sequence, as PyTorch sums
        total += column
    weights /= total[:, None]
    most, bits = float(weights.max()), 0
    while bits < _BITS and int(0.5 + most * (1 << (bits + 1))) < _LIMIT:
        bits += 1
    weights = np.trunc(weights * (1 << bits) + np.copysign(0.5, weights))
    for array in (first, weights):
        array.flags.writeable = False
    return first, weights, bits


def torch_resize(image: Pixels, height: int, width: int, method: str) -> np.ndarray:
    """Pixels (h, w, 3) uint8 to (height, width, 3) uint8, as torchvision's `resize` makes it.

    Args:
      method: "bilinear", "bicubic" or "lanczos", always with antialias.

    >>> torch_resize(np.array([[[0] * 3, [9] * 3]], np.uint8), 1, 1, "bilinear").tolist()
    [[[5, 5, 5]]]
    """
    if size_of(image)[1] != width:
        image = _turned(_rows(_turned(image), width, method))
    image = np.ascontiguousarray(array_of(image))
    return _rows(image, height, method) if len(image) != height else image


def _turned(image: Pixels) -> np.ndarray:
    """Rows as columns. Pillow moves a pixel at a time, NumPy its bytes."""
    pillow = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return np.array(pillow.transpose(Image.Transpose.TRANSPOSE))


@functools.lru_cache(64)
def _matrix(size: int, out: int, method: str) -> tuple[Any, int]:
    """`integer_weights` as a sparse matrix (out, size) int32, and their bits."""
    # Not NumPy's matmul: its threads wait for each other where many images are decoded at a time.
    from scipy.sparse import csr_array  # takes 0.1 s, which not every profile needs

    first, weights, bits = integer_weights(size, out, method)
    pixel = np.minimum(first[:, None] + np.arange(weights.shape[1]), size - 1)
    start = np.arange(out + 1) * weights.shape[1]
    matrix = csr_array((weights.astype(np.int32).ravel(), pixel.ravel(), start), (out, size))
    matrix.eliminate_zeros()
    return matrix, bits


def _rows(image: np.ndarray, out: int, method: str) -> np.ndarray:
    """Filters the first axis."""
    matrix, bits = _matrix(len(image), out, method)
    flat = np.ascontiguousarray(image).reshape(len(image), -1)
    made = np.empty((out, flat.shape[1]), np.uint8)
    for start in range(0, flat.shape[1], _CHUNK):
        chunk = slice(start, start + _CHUNK)
        # Weights sum to 2^22 at most, and their absolute values to less than twice that: with
        # bytes nothing reaches 2^31.
        total = matrix @ flat[:, chunk].astype(np.int32)
        total += 1 << (bits - 1)
        total >>= bits  # towards minus infinity
        made[:, chunk] = np.clip(total, 0, 255, out=total)
    return made.reshape(out, *image.shape[1:])
