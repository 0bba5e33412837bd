"""What a model takes of one image, and how many bytes of which arrays that is.

Made in a thread, or in another process into memory that both see (`decode_process`).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from siglip_jax.preprocessing.images import resize_image
from siglip_jax.preprocessing.naflex import Patches, naflex_patches
from siglip_jax.preprocessing.pixels import Pixels
from siglip_jax.preprocessing.profiles import ImageProfile


class Grid(NamedTuple):
    """Of a NaFlex model: the side of a patch in pixels, and the length of its sequence."""

    patch: int
    count: int


def example(pixels: Pixels, profile: ImageProfile, grid: Grid | None) -> np.ndarray | Patches:
    """Decoded pixels as (res, res, 3) uint8, or as `Patches` of a grid.

    Raises:
      ValueError: for an image that cannot be fitted.

    >>> profile = ImageProfile(decode="fastdct", resize="tf_bilinear", res=224)
    >>> example(np.zeros((30, 40, 3), np.uint8), profile, None).shape
    (224, 224, 3)
    """
    if grid is not None:
        return naflex_patches(pixels, profile, grid.patch, grid.count)
    if profile.res is None:
        raise ValueError("the profile keeps aspect ratios (NaFlex); use naflex_patches")
    return resize_image(pixels, profile.res, profile)


class Layout:
    """Where the arrays of an example lie in a run of bytes.

    >>> profile = ImageProfile(decode="fastdct", resize="tf_bilinear", res=2)
    >>> layout = Layout(profile, None)
    >>> memory = np.zeros(layout.size, np.uint8)
    >>> layout.write(memory, np.full((2, 2, 3), 7, np.uint8))
    >>> layout.size, layout.read(memory)[1, 1].tolist()
    (12, [7, 7, 7])
    """

    def __init__(self, profile: ImageProfile, grid: Grid | None) -> None:
        self.grid = grid
        arrays: list[tuple[tuple[int, ...], Any]]
        if grid is None:
            arrays = [((profile.res or 0, profile.res or 0, 3), np.uint8)]
        else:
            arrays = [((grid.count, grid.patch**2 * 3), np.float32)]
            arrays += [((grid.count,), np.int32)] * 3
        self.size, self._arrays = 0, list[tuple[slice, tuple[int, ...], Any]]()
        for shape, of in arrays:
            end = self.size + math.prod(shape) * np.dtype(of).itemsize
            self._arrays.append((slice(self.size, end), shape, of))
            self.size = end

    def write(self, memory: np.ndarray, made: np.ndarray | Patches) -> None:
        """Copies an example into (size,) uint8."""
        parts = made if isinstance(made, Patches) else (made,)
        for view, part in zip(self._views(memory), parts, strict=True):
            view[...] = part

    def read(self, memory: np.ndarray) -> np.ndarray | Patches:
        """A copy of the example in (size,) uint8."""
        parts = [np.array(view) for view in self._views(memory)]
        return parts[0] if self.grid is None else Patches(*parts)

    def _views(self, memory: np.ndarray) -> list[np.ndarray]:
        return [memory[part].view(of).reshape(shape) for part, shape, of in self._arrays]
