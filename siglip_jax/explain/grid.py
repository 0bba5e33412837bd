"""Where the patches of one image lie: from what a model takes to maps, and back to pixels."""

import dataclasses
from typing import Any

import numpy as np

from siglip_jax.config import NaFlexVision, Vision
from siglip_jax.preprocessing.naflex import Patches
from siglip_jax.preprocessing.profiles import PixelRange


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """The patches of one image, in rows and columns.

    Attributes:
      rows, columns: how many there are.
      patch: side of one in pixels.
      index: (rows·columns,) which of the model's tokens is the patch, row by row. A NaFlex
        model has tokens of padding, which are none.

    >>> from siglip_jax.config import SIZES
    >>> vision = Vision(size=SIZES["So400m"], patch=14, res=384)
    >>> grid = grid_of(np.zeros((384, 384, 3), np.uint8), vision)
    >>> grid.rows, grid.columns, grid.map(np.arange(27 * 27)).shape
    (27, 27, (27, 27))
    """

    rows: int
    columns: int
    patch: int
    index: np.ndarray

    def map(self, tokens: np.ndarray) -> np.ndarray:
        """(..., tokens) numbers as (..., rows, columns)."""
        return tokens[..., self.index].reshape(*tokens.shape[:-1], self.rows, self.columns)


def grid_of(ready: Any, vision: Vision | NaFlexVision) -> Grid:
    """The grid of one image.

    Args:
      ready: what `Scorer.preprocess` returns: (res, res, 3) pixels, or `Patches` without a
        batch axis.
      vision: the model's image tower.
    """
    if isinstance(vision, Vision):
        return Grid(vision.grid, vision.grid, vision.patch, np.arange(vision.grid**2))
    tokens = np.flatnonzero(np.asarray(ready.type) == 1)
    y, x = np.asarray(ready.yidx)[tokens], np.asarray(ready.xidx)[tokens]
    rows, columns = int(y.max()) + 1, int(x.max()) + 1
    index = np.empty(rows * columns, np.int64)
    index[y * columns + x] = tokens
    return Grid(rows, columns, vision.patch, index)


def seen_pixels(ready: Any, grid: Grid, pixels: PixelRange) -> np.ndarray:
    """(rows·patch, columns·patch, 3) uint8: the image as the model sees it.

    Of a fixed resolution, without the pixels beyond the last whole patch, which it never sees.

    Args:
      ready: as for `grid_of`.
      pixels: what uint8 0 and 255 have become in `Patches`.
    """
    if not isinstance(ready, Patches):
        return np.asarray(ready)[: grid.rows * grid.patch, : grid.columns * grid.patch]
    side = grid.patch
    tiles = np.asarray(ready.patches)[grid.index].reshape(grid.rows, grid.columns, side, side, 3)
    low, high = (np.asarray(end, np.float32) for end in pixels)
    image = (tiles.swapaxes(1, 2).reshape(grid.rows * side, -1, 3) - low) / (high - low)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
