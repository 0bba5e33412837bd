"""transformers: the settings of its image processors, read and written.

`preprocessor_config.json`, or what `processor_config.json` nests under `image_processor` where
transformers 5 saved it. What they leave out has the default of the processor's class (5.24).
"""

from pathlib import Path
from typing import Any, cast

from siglip_jax.config import NaFlexVision, Siglip
from siglip_jax.preprocessing.image_settings import crop_share, mean_and_std, range_of
from siglip_jax.preprocessing.profiles import ImageProfile, Resize, custom_profile

from .folder_images import FolderImages, images_said, of_colours
from .json_file import Settings, read_settings

IMAGES, PROCESSOR = "preprocessor_config.json", "processor_config.json"

# Pillow's numbers. torchvision has no box and no hamming filter; transformers' other backend
# resizes with Pillow.
_RESAMPLE: dict[int, Resize] = {
    0: "torch_nearest",
    1: "torch_lanczos",
    2: "torch_bilinear",
    3: "torch_bicubic",
    4: "pil_box",
    5: "pil_hamming",
}
_NUMBERS = {resize.split("_")[1]: number for number, resize in _RESAMPLE.items()}
_SWITCHES = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_center_crop": False}
_LEVELS: dict[str, Any] = {
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_FIXED: dict[str, Any] = {"resample": 3, "size": {"height": 224, "width": 224}}
_NAFLEX: dict[str, Any] = {"resample": 2, "patch_size": 16, "max_num_patches": 256}


def card_of(folder: Path) -> tuple[Path, Settings] | None:
    """The file that transformers would read of `folder`, and its settings; None without one."""
    if (folder / PROCESSOR).is_file():
        nested = read_settings(folder / PROCESSOR)
        if "image_processor" in nested:
            return folder / PROCESSOR, nested.part("image_processor")
    if (folder / IMAGES).is_file():
        return folder / IMAGES, read_settings(folder / IMAGES)
    return None


def read_images(folder: Path, config: Siglip, pad: int | None) -> FolderImages | None:
    """How `folder` wants its images prepared; None if it does not say.

    Args:
      config: of the model; has an image tower.
      pad: padding id of its texts, where that is known: it tells SigLIP, whose released
        processors resize bicubically, from SigLIP 2.
    """
    found = card_of(folder)
    if found is None:
        return None
    file, card = found
    if config.naflex:
        pad = 0  # there is no other
    elif pad is None:
        pad = 1 if card.get("resample", 3) == 3 else 0
    released = custom_profile(config, pad, "transformers").image
    return images_said(file, "transformers", released, lambda: _read(card, config, released))


def _read(card: Settings, config: Siglip, released: ImageProfile) -> ImageProfile:
    kind = str(card.get("image_processor_type", card.get("feature_extractor_type", "Siglip")))
    of_naflex = kind.startswith("Siglip2")
    if of_naflex != config.naflex:
        raise ValueError(f"image_processor_type is {kind}, another model's")
    # Only SigLIP's own classes have the defaults that are known here.
    known = _SWITCHES | (_NAFLEX if of_naflex else _FIXED) | _LEVELS
    if not kind.startswith("Siglip"):
        known = {"do_center_crop": False, "rescale_factor": 1 / 255}

    def value(name: str) -> Any:
        if name not in card and name not in known:
            raise ValueError(f"{kind} without {name}")
        return card.get(name, known.get(name))

    if not value("do_resize"):
        raise ValueError("do_resize is false: images would have to come in the model's own size")
    resample = value("resample")
    if resample not in _RESAMPLE:
        raise ValueError(f"resample is {resample!r}, none of {', '.join(map(str, _RESAMPLE))}")
    scale = value("rescale_factor") if value("do_rescale") else None
    plain = ([0.0] * 3, [1.0] * 3)
    mean, std = (
        (of_colours(value("image_mean")), of_colours(value("image_std")))
        if value("do_normalize")
        else plain
    )
    shape = _patches(value, config) if of_naflex else _square(value, card)
    made: dict[str, Any] = {
        "decode": released.decode,
        "exif": released.exif,
        "resize": _RESAMPLE[resample],
        "value_range": range_of(mean, std, scale),
        **shape,
    }
    return ImageProfile(**made)


def _patches(value: Any, config: Siglip) -> dict[str, Any]:
    patch = cast(NaFlexVision, config.vision).patch
    if value("patch_size") != patch:
        raise ValueError(f"patch_size is {value('patch_size')!r}, and the model has {patch}")
    return {"res": None, "max_patches": value("max_num_patches")}


def _square(value: Any, card: Settings) -> dict[str, Any]:
    size = _size(value("size"), square=bool(card.get("default_to_square", False)))
    crop = _size(value("crop_size"), square=True) if value("do_center_crop") else None
    if card.get("do_pad") and card.get("pad_size"):
        raise ValueError("do_pad with a pad_size")
    if set(size) == {"shortest_edge"} and crop is not None:
        fit, side = "shortest", size["shortest_edge"]
    elif set(size) == {"height", "width"} and size["height"] == size["width"]:
        fit, side = "squash", size["height"]
    else:
        raise ValueError(
            f"size is {size}, which is no square" + ("" if crop else " without a crop")
        )
    res = side if crop is None else crop.get("height", 0)
    if crop is not None and (crop != {"height": res, "width": res} or not 0 < res <= side):
        raise ValueError(f"crop_size is {crop} of a size of {side}")
    return {"res": res, "fit": fit, "crop": crop_share(res, side)}


def _size(value: Any, *, square: bool) -> dict[str, int]:
    if isinstance(value, dict):
        sides = cast(dict[str, int | None], value)
        return {key: side for key, side in sides.items() if side is not None}
    if isinstance(value, list | tuple):
        pair = cast(list[int], value)
        return {"height": pair[0], "width": pair[-1]}
    return {"height": value, "width": value} if square else {"shortest_edge": value}


def image_processor(config: Siglip, name: str, image: ImageProfile) -> dict[str, Any]:
    """What `preprocessor_config.json` says to have `image`, as far as it can say that."""
    mean, std = mean_and_std(image.value_range)
    made: dict[str, Any] = {
        "image_processor_type": f"{name}ImageProcessor",
        "processor_class": f"{name}Processor",
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": _NUMBERS.get(image.resize.split("_")[1], _NUMBERS["bilinear"]),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
    if isinstance(config.vision, NaFlexVision):
        patches = image.max_patches or config.vision.posemb_grid**2
        return {**made, "patch_size": config.vision.patch, "max_num_patches": patches}
    assert image.res is not None  # a fixed-resolution model has no other profile
    side = int(image.res / image.crop)
    squashed = {"height": side, "width": side}
    made["size"] = {"shortest_edge": side} if image.fit == "shortest" else squashed
    if image.fit == "shortest" or image.crop != 1:
        made |= {"do_center_crop": True, "crop_size": {"height": image.res, "width": image.res}}
    return made
