"""How the patches of images lie in a job's files, whatever their number and type."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa

from siglip_jax.config import Layer, Vision, from_dict, layer_name
from siglip_jax.jobs.manifest import Manifest
from siglip_jax.scoring.rows import Prepared

# Columns of a shard of which each image has a grid of its own.
GRID = ("grid_rows", "grid_columns")
_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
# Bytes of a row group: what is read to have one image.
_ROW_GROUP = 1 << 26


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchForm:
    """What the numbers in a column `features` are; stored with it under `features`.

    Attributes:
      layer: of the image tower that gave them (`siglip_jax.config.check_layer`).
      store: their type. Parquet and `.npy` have no bfloat16: its bits are stored as uint16.
      width: numbers a patch.
      patch: side of a patch in pixels of the image as it was resized.
      grid: rows and columns of patches, which come row by row; None where each image has its
        own (NaFlex), which columns `grid_rows` and `grid_columns` hold.
    """

    layer: Layer
    store: str
    width: int
    patch: int
    grid: tuple[int, int] | None

    @classmethod
    def of(cls, manifest: Manifest) -> "PatchForm":
        """That of a job, which stores patches."""
        vision = from_dict(manifest.space["architecture"]).image_tower
        return cls(
            layer=manifest.job["layer"],
            store=manifest.job["store"],
            width=vision.size.width,
            patch=vision.patch,
            grid=(vision.grid, vision.grid) if isinstance(vision, Vision) else None,
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers, once they are read back."""
        return np.dtype(_DTYPES[self.store])

    def describe(self) -> dict[str, Any]:
        """Plain JSON types; the layer as `--features` has it."""
        return dataclasses.asdict(self) | {"layer": layer_name(self.layer)}

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Numbers as the files have them."""
        return values.view(np.uint16) if self.store == "bfloat16" else values

    def numbers(self, stored: np.ndarray) -> np.ndarray:
        """The inverse of `stored`; a view, of mapped memory too."""
        return stored.view(self.dtype)

    def counts(self, items: Sequence[Prepared]) -> np.ndarray:
        """How many patches each of `items` has (n,), none of which is in error."""
        if self.grid is not None:
            return np.full(len(items), np.prod(self.grid))
        return np.array([np.prod(item.grid or (0, 0)) for item in items], np.int64)

    def together(self, values: np.ndarray, items: Sequence[Prepared]) -> np.ndarray:
        """The patches (all patches, width) of images, one after the other, without padding.

        Args:
          values: (n, patches, width), padded at the end where images have fewer.
          items: the n images.
        """
        real = np.arange(values.shape[1]) < self.counts(items)[:, None]
        return self.stored(values if real.all() else values[real]).reshape(-1, self.width)

    def column(self, values: np.ndarray, items: Sequence[Prepared]) -> pa.Array:
        """A column of lists of patches: of one length, or ragged; null for an item in error.

        Args:
          values: (n, patches, width) of the n items that are not in error.
          items: all of them.
        """
        flat = self.together(values, [item for item in items if item.error is None])
        missing = np.array([item.error is not None for item in items])
        counts = np.zeros(len(items), np.int64)
        counts[~missing] = self.counts([item for item in items if item.error is None])
        if self.grid is None:
            patches = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), self.width)
            offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
            return pa.ListArray.from_arrays(offsets, patches, mask=pa.array(missing))
        size = int(np.prod(self.grid))
        whole = np.zeros((len(items), size, self.width), flat.dtype)
        whole[~missing] = flat.reshape(-1, size, self.width)
        patches = pa.FixedSizeListArray.from_arrays(pa.array(whole.reshape(-1)), self.width)
        return pa.FixedSizeListArray.from_arrays(patches, size, mask=pa.array(missing))

    def grid_columns(self, items: Sequence[Prepared]) -> dict[str, pa.Array]:
        """Columns of the grid of each image; none where all have the same."""
        if self.grid is not None:
            return {}
        sides = zip(*(item.grid or (None, None) for item in items), strict=True)
        columns = zip(GRID, list(sides) or [(), ()], strict=True)
        return {name: pa.array(list(side), pa.int32()) for name, side in columns}


def rounded(z: np.ndarray, store: str) -> np.ndarray:
    """`z` in the type that is stored, to the nearest and ties to even.

    Raises:
      ValueError: for a number that is too large for it.

    >>> rounded(np.float32([1 + 2**-9, 1 + 2**-7]), "bfloat16").tolist()
    [1.0, 1.0078125]
    """
    with np.errstate(over="ignore"):
        made = z.astype(_DTYPES[store])
    beyond = ~np.isfinite(made) & np.isfinite(z)
    if beyond.any():
        raise ValueError(
            f"features reach {np.abs(z[beyond]).max():,.0f}, and {store} ends at "
            f"{float(ml_dtypes.finfo(made.dtype).max):,.0f}; store them as bfloat16 or float32"
        )
    return made


def patch_counts(table: pa.Table) -> np.ndarray | None:
    """Patches of each image (n,), of a table with its grid; None where all have as many."""
    if GRID[0] not in table.column_names:
        return None
    rows, columns = (np.array(table.column(name).to_pylist(), np.int64) for name in GRID)
    return rows * columns


def row_group_size(table: pa.Table) -> int | None:
    """Rows of a row group of a table, so that one image can be read without the others."""
    if "features" not in table.column_names or not len(table):
        return None
    return max(1, _ROW_GROUP * len(table) // table.nbytes)
