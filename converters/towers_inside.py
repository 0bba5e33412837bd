"""The image towers of SigLIP inside other models of transformers, and where in a file a tower is.

A vision language model states its image tower in `vision_config` and stores it behind a prefix
(`vision_tower.`, `vision_tower.vision_model.`, `model.vision_model.`, by version); a tower
that transformers 5.8 or later saved alone has none, where earlier versions wrote
`vision_model.`. So the prefix is found in the file, by the tensor that only a tower has.
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from siglip_jax.config import Pool, Siglip, Tower

from .json_file import Settings
from .translation import APART

# The first tensor of a tower, behind its prefix.
_FIRST: dict[Tower, str] = {
    "image": "embeddings.patch_embedding.weight",
    "text": "embeddings.token_embedding.weight",
}
# Ends of that name in any system of PyTorch: of transformers, timm, open_clip.
_FIRSTS: dict[Tower, tuple[str, ...]] = {
    "image": (_FIRST["image"], "patch_embed.proj.weight", "embeds.proj.weight"),
    "text": (_FIRST["text"], "text.token_embedding.weight"),
}
# model_type of an image tower: whether it is NaFlex, and what its configuration leaves out
# (transformers 5.23), where that is not SigLIP's.
_SIGLIP = "siglip_vision_model"
_BUCKETED: dict[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "patch_size": 32,
    "vision_use_head": False,
}
_IMAGE_TOWERS: dict[str, tuple[bool, dict[str, Any]]] = {
    _SIGLIP: (False, {}),
    "siglip2_vision_model": (True, {}),
    "idefics3_vision": (False, _BUCKETED),
    "smolvlm_vision": (False, _BUCKETED),
}
# Models whose vision_config may leave out its model_type, or give their own.
_OF_MODEL = {
    "paligemma": _SIGLIP,
    "gemma3": _SIGLIP,
    "idefics3": "idefics3_vision",
    "smolvlm": "smolvlm_vision",
}
# Patches a side at which the buckets of Idefics3 and SmolVLM, rounded to float32, are not 0, 1,
# 2, ...: measured with torch 2.14 on a CPU, up to 128.
_OUT_OF_ORDER = frozenset(
    (19, 25, 29, 31, 38, 40, 41, 43, 47, 49, 50, 54, 55, 58, 59, 61, 62, 67, 68, 71, 72, 73, 74, 76,
     77, 80, 82, 83, 84, 86, 87, 93, 94, 97, 98, 99, 100, 101, 103, 107, 108, 109, 110, 111, 113,
     115, 116, 118, 121, 122, 123, 124, 127)
)  # fmt: skip
_IDEFICS2 = (
    "Idefics2 takes images of any size and looks their positions up by bucketed fractional "
    "coordinates, which is another rule than SigLIP's and is not supported"
)


def image_tower_inside(card: Settings) -> tuple[Settings, bool] | None:
    """What `config.json` says of a SigLIP image tower inside another model, and if it is NaFlex.

    None if it speaks of no image tower.

    Raises:
      ValueError: if its image tower is another, or SigLIP's with positions that are not.
    """
    outer = card.get("model_type")
    if outer == "idefics2":
        raise ValueError(f"{card.where}: {_IDEFICS2}")
    beside = str(card.part("text_config").get("model_type", ""))
    if "vision_config" not in card or beside.startswith("siglip"):
        return None  # both towers of SigLIP are no other model, whatever it is called
    part = card.part("vision_config")
    kind = part.get("model_type", outer)
    kind = _OF_MODEL.get(kind, kind) if kind == outer else kind
    if kind not in _IMAGE_TOWERS:
        raise ValueError(
            f"{card.where} is of model_type {outer!r}, and its image tower is {kind!r}, not "
            f"SigLIP's; expected one of {', '.join(_IMAGE_TOWERS)}"
        )
    naflex, left_out = _IMAGE_TOWERS[kind]
    part = Settings(left_out | part.values, part.where)
    if left_out:
        _check_buckets(part)
    return part, naflex


def _check_buckets(part: Settings) -> None:
    """Idefics3 and SmolVLM look positions up by buckets, at nearly all sizes in their order."""
    side = part.number("image_size", 224) // part.number("patch_size")
    if side in _OUT_OF_ORDER or side > 128:
        raise ValueError(
            f"{part.where}: at {side} patches a side transformers rounds bucketed positions to "
            "others than SigLIP's, which is not supported"
        )


def tower_prefix(names: Iterable[str], tower: Tower, where: object) -> str:
    """What stands before the names of a tower's tensors.

    Raises:
      ValueError: if there is no such tower among `names`, or more than one.

    >>> names = ["lm_head.weight", "vision_tower.vision_model.embeddings.patch_embedding.weight"]
    >>> tower_prefix(names, "image", "x.safetensors")
    'vision_tower.vision_model.'
    """
    first = _FIRST[tower]
    names = list(names)
    found = sorted({n.removesuffix(first) for n in names if re.fullmatch(rf"(.*\.)?{first}", n)})
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(prefix or "(no prefix)" for prefix in found)
        raise ValueError(f"{where} holds more than one {tower} tower: {listed}")
    shown = ", ".join(sorted(names)[:3]) or "no tensors"
    raise ValueError(f"{where} holds no {tower} tower: nothing ends in {first}; there is {shown}")


def only_behind(prefix: str) -> dict[str, str]:
    """Rules (`translate`) that leave out everything without this prefix."""
    return {rf"(?!{re.escape(prefix)}).*": f"{APART} ({prefix})"} if prefix else {}


def config_of_file(
    config: Siglip, names: Iterable[str], head: str, headless: Pool = "none"
) -> Siglip:
    """`config`, given for a file that states none, narrowed to what the file holds.

    That is one tower, if there is only one, and an image tower alone without pooling head.

    Args:
      config: of a model like it.
      names: in the file.
      head: pattern of a tensor of the pooling head.
      headless: the pooling of a tower without one.
    """
    names = list(names)
    there: list[Tower] = [t for t in config.towers if any(n.endswith(_FIRSTS[t]) for n in names)]
    if len(there) == 1:
        config = config.only(there[0])
    vision = config.vision
    if config.tower != "image" or vision is None or vision.pool != "map":
        return config
    if any(re.fullmatch(head, name) for name in names):
        return config
    return dataclasses.replace(config, vision=dataclasses.replace(vision, pool=headless))
