"""Two checkpoints of any formats, compared tensor by tensor under big_vision's names."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np

from siglip_jax.config import to_dict

from .checkpoint import OpenCheckpoint
from .loop_form import LoopForm

Progress = Callable[[int, int], None]
_CHUNK = 1 << 22  # numbers at a time, because the difference is taken in float64


@dataclasses.dataclass(frozen=True)
class TensorDifference:
    """A tensor that both checkpoints have.

    Attributes:
      name: big_vision's, in loop form.
      shapes, dtypes: in one and in the other.
      identical: whether dtype, shape and every bit are the same.
      largest: the largest absolute difference, infinite where only one has no finite
        number; None if the shapes differ.
      scale: the largest absolute value in the first.
    """

    name: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[str, str]
    identical: bool
    largest: float | None
    scale: float | None


def architecture_differences(a: OpenCheckpoint, b: OpenCheckpoint) -> dict[str, tuple[Any, Any]]:
    """What the configurations say differently, of the towers that both have."""
    pairs = {
        "towers": (a.tower or "image and text", b.tower or "image and text"),
        **{
            f"{part}.{key}": (flat_a.get(key), flat_b.get(key))
            for part, tower in (("vision", "image"), ("text", "text"))
            if tower in a.config.towers and tower in b.config.towers
            for flat_a, flat_b in [(_flat(to_dict(s.config)[part]) for s in (a, b))]
            for key in {**flat_a, **flat_b}
        },
    }
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def names_apart(a: OpenCheckpoint, b: OpenCheckpoint) -> tuple[list[str], list[str]]:
    """The tensors that only one of them has."""
    one, other = (set(LoopForm(source.reader).shapes) for source in (a, b))
    return sorted(one - other), sorted(other - one)


def tensor_differences(
    a: OpenCheckpoint, b: OpenCheckpoint, progress: Progress | None = None
) -> Iterator[TensorDifference]:
    """Every tensor that both have, one at a time.

    `progress` is called with bytes read so far and in all, of both.
    """
    one, other = LoopForm(a.reader), LoopForm(b.reader)
    # In the order of a stacked checkpoint, of which whole stacks are kept till they are used.
    stacked = any(one.origin(name)[1] is not None for name in one.shapes)
    first, second = (one, other) if stacked else (other, one)
    names = [name for name in first.shapes if name in second.shapes]
    total = sum(x.shapes[name].nbytes for name in names for x in (one, other))
    done = 0
    for name in names:
        yield _compare(name, one.read(name), other.read(name))
        done += one.shapes[name].nbytes + other.shapes[name].nbytes
        if progress is not None:
            progress(done, total)


def _compare(name: str, x: np.ndarray, y: np.ndarray) -> TensorDifference:
    shapes, dtypes = (x.shape, y.shape), (x.dtype.name, y.dtype.name)
    if x.shape != y.shape:
        return TensorDifference(name, shapes, dtypes, False, None, None)
    largest = scale = 0.0
    bits = x.dtype == y.dtype
    p, q = x.reshape(-1), y.reshape(-1)
    for start in range(0, p.size, _CHUNK):
        u, v = p[start : start + _CHUNK], q[start : start + _CHUNK]
        bits = bits and u.tobytes() == v.tobytes()
        u, v = u.astype(np.float64), v.astype(np.float64)
        scale = max(scale, float(np.abs(u).max()))
        with np.errstate(invalid="ignore"):
            apart = np.where((u == v) | (np.isnan(u) & np.isnan(v)), 0.0, np.abs(u - v))
        apart[np.isnan(apart)] = np.inf
        largest = max(largest, float(apart.max()))
    return TensorDifference(name, shapes, dtypes, bits, largest, scale)


def _flat(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            flat |= _flat(cast(dict[str, Any], value), f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
