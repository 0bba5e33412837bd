"""What reading a checkpoint means, whichever format it is in.

A reader knows the shape and dtype of every parameter without reading any, and
reads them one at a time. Names are those of `weights.layout`, whatever the file
puts before them; what is no parameter is ignored by rule and listed.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol, Self

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = (np.dtype(np.float32), BFLOAT16, np.dtype(np.float16), np.dtype(np.float64))


class Header(NamedTuple):
    """Shape and dtype of a stored tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Reader(Protocol):
    """An open checkpoint.

    Attributes:
      path: what was opened, for messages.
      subtree: the part of the model that the names are relative to; "" for all.
      shapes: name to shape and dtype, of parameters only.
      ignored: names in the file that are no parameters.
    """

    path: str
    subtree: str
    shapes: dict[str, Header]
    ignored: tuple[str, ...]

    def read(self, name: str) -> np.ndarray: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def select_parameters(names: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Which of the stored names are parameters, by big_vision's rule (`utils.load_params`).

    Parameters are what lies under `params/` if anything does, else under
    `opt/target/` (the old Flax optimizer), else everything except the optimizer
    (`opt/`) and the time-keeping (`chrono/`).

    Returns:
      A dictionary from parameter name to stored name, and the names ignored.

    >>> select_parameters(["params/img/pos_embedding", "opt/0/count"])
    ({'img/pos_embedding': 'params/img/pos_embedding'}, ('opt/0/count',))
    """
    names = list(names)
    for prefix in ("params/", "opt/target/"):
        if any(name.startswith(prefix) for name in names):
            chosen = {n.removeprefix(prefix): n for n in names if n.startswith(prefix)}
            break
    else:
        chosen = {n: n for n in names if not n.startswith(("opt/", "chrono/"))}
    return chosen, tuple(sorted(set(names) - set(chosen.values())))


def empty_aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`np.empty` at an address that jax's CPU device takes over instead of copying.

    XLA wants 64-byte alignment there; numpy gives 16.
    """
    nbytes = Header(shape, dtype).nbytes
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes].view(dtype).reshape(shape)
