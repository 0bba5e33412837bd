"""timm: the settings of its image transform, read and written.

`pretrained_cfg` of `config.json`, as `timm.data.resolve_model_data_config` and
`create_transform` (1.0) read it. Its size is that of the registered architecture, whatever
size the model was built with, so that the model's own is taken.
"""

import dataclasses
from pathlib import Path
from typing import Any

from siglip_jax.config import Siglip
from siglip_jax.messages import choose
from siglip_jax.preprocessing.image_settings import mean_and_std, range_of
from siglip_jax.preprocessing.profiles import Fit, ImageProfile, custom_profile

from .folder_images import FolderImages, images_said, of_colours
from .json_file import Settings

_DEFAULTS: dict[str, Any] = {
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
}
_INTERPOLATION = ("bicubic", "bilinear", "lanczos", "nearest", "box", "hamming")
_FITS: dict[str, Fit] = {"squash": "squash", "border": "longest", "center": "shortest"}
_MODES = {fit: mode for mode, fit in _FITS.items()}
# With what timm has released SigLIP, and what open_clip prepares for the same towers.
_RELEASED = (("squash", 1.0), ("shortest", 0.9), ("shortest", 1.0))


def read_images(card: Settings, config: Siglip) -> FolderImages | None:
    """How the folder of timm's `config.json` wants its images prepared; None if it does not say."""
    if "pretrained_cfg" not in card:
        return None
    released = custom_profile(config, 0, "open_clip").image
    images = images_said(
        Path(card.where),
        "open_clip",
        released,
        lambda: _read(card.part("pretrained_cfg"), released),
    )
    said = images.said
    if said is None or (said.fit, said.crop) not in _RELEASED:
        return images
    released = dataclasses.replace(released, fit=said.fit, crop=said.crop)
    return dataclasses.replace(images, released=released)


def _read(card: Settings, released: ImageProfile) -> ImageProfile:
    found = {name: card.get(name, default) for name, default in _DEFAULTS.items()}
    mean, fit = of_colours(found["mean"]), _FITS.get(found["crop_mode"], "shortest")
    made: dict[str, Any] = {
        "resize": f"pil_{choose('interpolation', found['interpolation'], _INTERPOLATION)}",
        "fit": fit,
        "crop": float(found["crop_pct"]),
        "fill": tuple(round(255 * m) for m in mean) if fit == "longest" else (0, 0, 0),
        "value_range": range_of(mean, of_colours(found["std"])),
    }
    return dataclasses.replace(released, **made)


def pretrained_cfg(image: ImageProfile) -> dict[str, Any]:
    """What `pretrained_cfg` says to have `image`, as far as it can say that."""
    mean, std = mean_and_std(image.value_range)
    method = image.resize.split("_")[1]
    return {
        "interpolation": method if method in _INTERPOLATION else "bilinear",
        "crop_pct": image.crop,
        "crop_mode": _MODES[image.fit],
        "mean": mean,
        "std": std,
    }
