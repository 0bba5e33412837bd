"""open_clip: the settings of its image transform, read and written.

`preprocess_cfg` of `open_clip_config.json`. What it leaves out has the default of
`open_clip.transform.PreprocessCfg` (3.3), which is not what SigLIP was trained with.
"""

import dataclasses
from pathlib import Path
from typing import Any

from siglip_jax.config import Siglip
from siglip_jax.preprocessing.image_settings import mean_and_std, range_of
from siglip_jax.preprocessing.profiles import ImageProfile, custom_profile

from .folder_images import FolderImages, images_said, of_colours
from .json_file import Settings

_DEFAULTS: dict[str, Any] = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
# "random" is of training; without it open_clip takes bicubic.
_INTERPOLATION = {"bicubic": "pil_bicubic", "bilinear": "pil_bilinear", "random": "pil_bicubic"}


def read_images(card: Settings, config: Siglip, pad: int | None) -> FolderImages | None:
    """How the folder of an `open_clip_config.json` wants its images prepared.

    None if `card` is of an architecture only, which open_clip keeps without preprocessing.
    """
    if "model_cfg" not in card:
        return None
    side = card.part("model_cfg").part("vision_cfg").number("image_size", 224)
    released = custom_profile(config, pad or 0, "open_clip", res=side).image
    return images_said(
        Path(card.where),
        "open_clip",
        released,
        lambda: _read(card.part("preprocess_cfg"), released),
    )


def _read(card: Settings, released: ImageProfile) -> ImageProfile:
    found = {name: card.get(name, default) for name, default in _DEFAULTS.items()}
    if found["interpolation"] not in _INTERPOLATION:
        raise ValueError(f"interpolation is {found['interpolation']!r}, unknown to open_clip")
    if found["resize_mode"] not in ("shortest", "longest", "squash"):
        raise ValueError(f"resize_mode is {found['resize_mode']!r}, unknown to open_clip")
    fill = found["fill_color"]
    made: dict[str, Any] = {
        "resize": _INTERPOLATION[found["interpolation"]],
        "fit": found["resize_mode"],
        # Of other fits it is never seen.
        "fill": (fill,) * 3 if found["resize_mode"] == "longest" else (0, 0, 0),
        "value_range": range_of(of_colours(found["mean"]), of_colours(found["std"])),
    }
    return dataclasses.replace(released, **made)


def preprocess_cfg(image: ImageProfile) -> dict[str, Any]:
    """What `preprocess_cfg` says to have `image`, as far as it can say that."""
    mean, std = mean_and_std(image.value_range)
    method = image.resize.split("_")[1]
    made: dict[str, Any] = {
        "mean": mean,
        "std": std,
        "interpolation": "bilinear" if method in ("bilinear", "antialias") else "bicubic",
        "resize_mode": image.fit,
    }
    return {**made, "fill_color": image.fill[0]} if image.fit == "longest" else made
