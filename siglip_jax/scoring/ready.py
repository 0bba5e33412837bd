"""Arrays that are said to be ready for a model: refused where they cannot be."""

# jax annotates its functions in part.
# pyright: reportUnknownMemberType=false

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from siglip_jax.models.inputs import check_channels
from siglip_jax.preprocessing import Patches
from siglip_jax.preprocessing.profiles import PixelRange

# Share of the range by which values may leave it: a cubic filter overshoots.
_SLACK = 0.25
# Values that are looked at to tell 0..1 from the light half of -1..1.
_SAMPLE = 1 << 20


def check_ready(images: Any, pixels: PixelRange, res: int) -> None:
    """Refuses images (n, h, w, 3) that are not uint8, nor floats in the profile's range.

    Args:
      images: on the host, or on devices, from which three numbers come back.
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
    _check_values(patches.patches, pixels, "patches", halves=False)


def _check_values(images: Any, pixels: PixelRange, what: str, *, halves: bool) -> None:
    ends = [np.broadcast_to(np.asarray(end, np.float64), 3) for end in pixels]
    low, high = float(ends[0].min()), float(ends[1].max())
    either = "uint8 images, or floats" if what == "images" else "float patches"
    expected = f"expected {either} from {low:.4g} to {high:.4g}"
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"{expected}, got {images.dtype}{_advice(what)}")
    if not images.size:
        return
    if isinstance(images, jax.Array):
        sides = tuple(tuple(map(float, end)) for end in ends)
        numbers = jax.device_get(_on_devices(images, sides, halves=halves))
        least, most, off = map(float, numbers)
    else:
        images, off = np.asarray(images), None
        least, most = float(images.min()), float(images.max())
    slack = _SLACK * (high - low)
    wrong = not (low - slack <= least and most <= high + slack)  # NaN too
    if halves and not wrong and low < 0 <= least < most <= 1:
        off = float(_off_grey_levels(images, ends, np)) if off is None else off
        wrong = not off < 1e-2
    if wrong:
        got = f"got {images.dtype} from {least:.4g} to {most:.4g}"
        raise ValueError(f"{expected}, {got}{_advice(what)}")


@functools.partial(jax.jit, static_argnames=("sides", "halves"))
def _on_devices(images: Any, sides: Any, *, halves: bool) -> tuple[Any, Any, Any]:
    """The least and the greatest value, and how far they are from grey levels (if `halves`)."""
    ends = [np.asarray(side, np.float32) for side in sides]
    off = _off_grey_levels(images, ends, jnp) if halves else jnp.zeros(())
    # XLA's least of NaNs on a CPU is infinity.
    missing = jnp.where(jnp.isnan(images).any(), jnp.nan, 0)
    return images.min() + missing, images.max() + missing, off


def _off_grey_levels(images: Any, ends: Any, xp: Any) -> Any:
    """How far values are from what grey levels become in the range `ends`, of 255."""
    flat = images.reshape(-1, 3)
    some = flat[:: max(1, flat.shape[0] // _SAMPLE)].astype(ends[0].dtype)
    grey = (some - ends[0][None]) / (ends[1] - ends[0])[None] * 255
    return xp.abs(grey - xp.round(grey)).max()


def _advice(what: str) -> str:
    if what == "patches":
        return "; scorer.preprocess makes them"
    return "; give files, Pillow images or uint8 arrays, which are normalised as the profile says"
