"""Arrays that are said to be ready for a model: refused where they cannot be."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from siglip_jax.models.inputs import check_channels
from siglip_jax.preprocessing import Patches
from siglip_jax.preprocessing.profiles import PixelRange

# Share of the range by which values may leave it: a cubic filter overshoots.
_SLACK = 0.25
# Values that are looked at to tell 0..1 from the light half of -1..1.
_SAMPLE = 1 << 20


def check_ready(images: np.ndarray, pixels: PixelRange, res: int) -> None:
    """Refuses images (n, h, w, 3) that are not uint8, nor floats in the profile's range.

    Args:
      images: on the host.
      pixels: what grey levels 0 and 255 become.
      res: side in pixels, for messages.

    Raises:
      ValueError: for channels first, other dtypes, and floats that lie in 0..255 or 0..1 where
        the model takes another range; says what is expected. Light images in -1..1 are told
        from 0..1 by their values, which are those of 256 grey levels.
    """
    check_channels(images.shape, res, "n")
    if images.dtype != np.uint8:
        _check_values(images, pixels, "images", halves=True)


def check_ready_patches(patches: Patches, pixels: PixelRange) -> None:
    """The same of `Patches`, but that 0..1 is not told from the light half of -1..1."""
    _check_values(np.asarray(patches.patches), pixels, "patches", halves=False)


def _check_values(images: np.ndarray, pixels: PixelRange, what: str, *, halves: bool) -> None:
    ends = [np.broadcast_to(np.asarray(end, np.float64), 3) for end in pixels]
    low, high = float(ends[0].min()), float(ends[1].max())
    either = "uint8 images, or floats" if what == "images" else "float patches"
    expected = f"expected {either} from {low:.4g} to {high:.4g}"
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"{expected}, got {images.dtype}{_advice(what)}")
    if not images.size:
        return
    least, most = float(images.min()), float(images.max())
    slack = _SLACK * (high - low)
    wrong = not (low - slack <= least and most <= high + slack)  # NaN too
    if halves and not wrong and low < 0 <= least < most <= 1:
        wrong = not _of_grey_levels(images, ends)
    if wrong:
        got = f"got {images.dtype} from {least:.4g} to {most:.4g}"
        raise ValueError(f"{expected}, {got}{_advice(what)}")


def _of_grey_levels(images: np.ndarray, ends: list[Any]) -> bool:
    """Whether values are what grey levels become in the range `ends`."""
    flat = images.reshape(-1, 3)
    some = flat[:: max(1, flat.shape[0] // _SAMPLE)].astype(np.float64)
    grey = (some - ends[0]) / (ends[1] - ends[0]) * 255
    return bool(np.abs(grey - grey.round()).max() < 1e-2)


def _advice(what: str) -> str:
    if what == "patches":
        return "; scorer.preprocess makes them"
    return "; give files, Pillow images or uint8 arrays, which are normalised as the profile says"
