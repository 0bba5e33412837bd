"""An image profile in the words of other systems: mean, std, crop; and how two of them differ."""

import math
from collections.abc import Sequence

from siglip_jax.preprocessing.profiles import ImageProfile, Levels, PixelRange, pixel_range

# What a file can say about images. How they are decoded, and what lies behind transparent
# pixels, is up to the system that reads it.
SETTINGS = ("res", "max_patches", "fit", "crop", "fill", "resize", "mean", "std")
_DIGITS = 12  # more would show that decimal fractions are rounded


def range_of(
    mean: Sequence[float], std: Sequence[float], scale: float | None = 1 / 255
) -> PixelRange:
    """The `value_range` of (grey level * scale - mean) / std, a number of each for each colour.

    Args:
      scale: None does not rescale.

    >>> range_of([0.5] * 3, [0.5] * 3)
    (-1.0, 1.0)
    >>> range_of([0.25, 0.5, 0.5], [0.25, 0.5, 0.5])
    ((-1.0, -1.0, -1.0), (3.0, 1.0, 1.0))
    """
    white = 255 * scale if scale is not None else 255.0
    white = 1.0 if math.isclose(white, 1.0, rel_tol=1e-6) else white
    both = list(zip(mean, std, strict=True))
    return pixel_range([[(level - m) / s for m, s in both] for level in (0.0, white)])


def mean_and_std(pixels: PixelRange) -> tuple[list[float], list[float]]:
    """The inverse of `range_of`: three numbers each.

    >>> mean_and_std((-1.0, 1.0))
    ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    """
    low, high = (_three(end) for end in pixels)
    std = [1 / (b - a) for a, b in zip(low, high, strict=True)]
    mean = [0.0 - a * s for a, s in zip(low, std, strict=True)]
    return [_decimal(value) for value in mean], [_decimal(value) for value in std]


def _three(end: Levels) -> tuple[float, float, float]:
    return end if isinstance(end, tuple) else (end, end, end)


def _decimal(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def crop_share(res: int, side: int) -> float:
    """The `crop` with which an image is resized to `side` before `res` of it are kept.

    >>> crop_share(224, 256)
    0.875
    """
    share = res / side
    while int(res / share) < side:
        share = math.nextafter(share, 0)
    return share


def settings_of(image: ImageProfile) -> dict[str, str]:
    """What a file can say of `image`, in words, by the names in `SETTINGS`.

    >>> profile = ImageProfile(decode="pillow", resize="pil_bicubic", res=224)
    >>> settings_of(profile)["mean"], settings_of(profile)["fit"]
    ('0.5', 'squash')
    """
    mean, std = mean_and_std(image.value_range)
    plain = {name: getattr(image, name) for name in ("res", "max_patches", "fit", "resize")}
    plain |= {"mean": _spoken(mean), "std": _spoken(std), "crop": "none"}
    side = int(image.res / image.crop) if image.res is not None else None
    if side != image.res:
        plain["crop"] = f"{image.res} of {side}"
    plain["fill"] = _spoken(list(image.fill)) if image.fit == "longest" else "none"
    return {name: str(plain[name]) for name in SETTINGS}


def _spoken(values: Sequence[float]) -> str:
    some = values[:1] if len(set(values)) == 1 else values
    return " ".join(f"{value:.6g}" for value in some)


def different_settings(one: ImageProfile, other: ImageProfile) -> list[str]:
    """The names of the settings in which two profiles differ.

    >>> import dataclasses
    >>> profile = ImageProfile(decode="pillow", resize="pil_bicubic", res=224)
    >>> different_settings(profile, dataclasses.replace(profile, value_range=(0, 1)))
    ['mean', 'std']
    """
    ours, theirs = settings_of(one), settings_of(other)
    return [name for name in SETTINGS if ours[name] != theirs[name]]
