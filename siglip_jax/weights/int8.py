"""Weights of one byte: which, and how they are rounded.

Kernels of dense layers and attention keep a scale for every output channel, the token
embedding one for every token, each beside its tensor as `<name>_scale`:

    kernel ≈ kernel_int8 · scale,   scale = max |kernel| / 127 over what is summed

Symmetric, so that zero stays zero and no offset has to be carried through a matmul. All
else (norms, biases, position embeddings, the stem, temperature and bias) stays as it is:
less than 1% of the weights.
"""

import re
from collections.abc import Mapping

import numpy as np

_SCALE = "_scale"
# Which axes are summed over when the layer is applied, from the last one backwards, so that
# a leading axis of scanned layers does not matter.
_SUMMED: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"img/embedding/kernel", ()),
    (r".*/(query|key|value)/kernel", (-3,)),
    (r".*/out/kernel", (-3, -2)),
    (r".*/kernel", (-2,)),
    (r"txt/Embed_0/embedding", (-1,)),
)
_CHUNK = 2**20


def summed_axes(name: str) -> tuple[int, ...]:
    """The axes that share a scale; none for a parameter that stays as it is.

    >>> summed_axes("img/MAPHead_0/MlpBlock_0/Dense_0/kernel"), summed_axes("t")
    ((-2,), ())
    """
    return next((axes for pattern, axes in _SUMMED if re.fullmatch(pattern, name)), ())


def int8_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """`shapes` of a model, with those of the scales.

    >>> int8_shapes({"txt/Embed_0/embedding": (9, 4), "t": (1,)})
    {'txt/Embed_0/embedding': (9, 4), 'txt/Embed_0/embedding_scale': (9, 1), 't': (1,)}
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        found[name] = tuple(shape)
        if axes := summed_axes(name):
            kept = [1 if d - len(shape) in axes else side for d, side in enumerate(shape)]
            found[name + _SCALE] = tuple(kept)
    return found


def stored_dtype(name: str, weights: str | None) -> str | None:
    """The dtype of a parameter under `Execution.weights`; None for the one that it has.

    >>> [stored_dtype(name, "int8") for name in ("txt/head/kernel", "txt/head/kernel_scale", "t")]
    ['int8', 'float32', 'float32']
    """
    if weights is not None and name in ("t", "b"):
        # A bfloat16 logarithm of the temperature would be off by up to 1% as a temperature, and
        # in float16 Adam's first step of one is not finite.
        return "float32"
    if weights == "int8":
        return "float32" if name.endswith(_SCALE) else "int8" if summed_axes(name) else None
    return weights


def stored(name: str, array: np.ndarray, weights: str | None) -> dict[str, np.ndarray]:
    """A parameter as `Execution.weights` keeps it: itself, or int8 and its scale."""
    dtype = stored_dtype(name, weights)
    if dtype == "int8":
        values, scale = quantized(array, summed_axes(name))
        if not np.isfinite(scale).all():
            raise ValueError(f"{name} holds values that are not finite; int8 has none for them")
        return {name: values, name + _SCALE: scale}
    return {name: array if dtype is None else array.astype(dtype, copy=False)}


def quantized(array: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """int8 of the same shape, and float32 scales with `axes` of length one.

    Holds no second copy of `array` in its own dtype.

    >>> quantized(np.array([[-2.0, 0.5], [1.0, 0.25]]), (-2,))[0].tolist()
    [[-127, 127], [64, 64]]
    """
    largest = np.maximum(array.max(axis=axes, keepdims=True), -array.min(axis=axes, keepdims=True))
    scale = largest.astype(np.float32) / np.float32(127)
    # A channel of zeros: anything but zero will do.
    scale[scale == 0] = 1
    values = np.empty(array.shape, np.int8)
    rows = max(1, _CHUNK // max(1, array[0].size))
    for start in range(0, len(array), rows):
        part = slice(start, start + rows)
        of_part = scale if len(scale) == 1 else scale[part]
        with np.errstate(invalid="ignore"):  # What is not finite has no scale either.
            values[part] = np.rint(array[part].astype(np.float32) / of_part)
    return values, scale
