"""transformers: `config.json` and `preprocessor_config.json`, written and read.

What a `config.json` leaves out has the default of transformers' configuration class
(5.23), and is read so: that is the file's meaning, not a guess.
"""

import math
from pathlib import Path
from typing import Any

from siglip_jax.classifier import Classifier
from siglip_jax.config import NaFlexVision, Pool, Siglip, Size, Text, Tower, Vision
from siglip_jax.preprocessing.profiles import ImageProfile, TextProfile, custom_profile

from . import hf_tokenizer
from .classifiers import transformers_card
from .json_file import Settings, read_settings, write_json
from .towers_inside import image_tower_inside
from .transformers_images import IMAGES, card_of, image_processor

CONFIG = "config.json"

# The tanh approximation of GELU, by any of transformers' names for it.
_TANH = ("gelu_pytorch_tanh", "gelu_tanh", "gelu_new", "gelu_fast")
_CLASSIFIES = "ForImageClassification"
_KINDS: dict[str, tuple[bool, Tower | None]] = {
    "siglip": (False, None),
    "siglip_vision_model": (False, "image"),
    "siglip_text_model": (False, "text"),
    "siglip2": (True, None),
    "siglip2_vision_model": (True, "image"),
    "siglip2_text_model": (True, "text"),
}


def write_files(
    folder: Path,
    config: Siglip,
    tower: Tower | None,
    *,
    pad: int | None,
    dtype: str,
    vocabulary: Path | None,
    images: ImageProfile | None = None,
    text_profile: TextProfile | None = None,
    classifier: Classifier | None = None,
    **unused: Any,
) -> None:
    """Everything but the weights: configuration, image processor, tokenizer."""
    kind = "siglip2" if config.naflex else "siglip"
    name = "Siglip2" if config.naflex else "Siglip"
    part = config.only(tower)
    whole = part.tower is None
    vision = _vision_card(part.vision, kind) if part.vision else {}
    text = _text_card(part.text, kind, pad) if part.text else {}
    if part.tower is None:
        card = {"architectures": [f"{name}Model"], "model_type": kind}
        card |= {"vision_config": vision, "text_config": text}
    elif classifier is not None:
        card = {"architectures": [f"{name}{_CLASSIFIES}"], "model_type": kind}
        card |= {"vision_config": vision, **transformers_card(classifier)}
    elif part.text is None:
        card = {"architectures": [f"{name}VisionModel"], **vision}
    else:
        card = {"architectures": [f"{name}TextModel"], **text}
    # Both spellings, because transformers 4 reads one and 5 the other.
    write_json(folder / CONFIG, {**card, "dtype": dtype, "torch_dtype": dtype})
    if part.vision is not None:
        images = images or custom_profile(config, pad or 0, "transformers").image
        write_json(folder / IMAGES, image_processor(config, name, images))
    if part.text is not None and vocabulary is not None and text_profile is not None:
        hf_tokenizer.write(
            folder, vocabulary, text_profile, f"{name}Processor", naflex=part.naflex and whole
        )


def _vision_card(vision: Vision | NaFlexVision, kind: str) -> dict[str, Any]:
    side = (
        {"num_patches": vision.posemb_grid**2}
        if isinstance(vision, NaFlexVision)
        else {"image_size": vision.res}
    )
    return {
        "model_type": f"{kind}_vision_model",
        **_size(vision.size),
        "patch_size": vision.patch,
        "num_channels": 3,
        **side,
        "vision_use_head": vision.pool == "map",
    }


def _text_card(text: Text, kind: str, pad: int | None) -> dict[str, Any]:
    return {
        "model_type": f"{kind}_text_model",
        **_size(text.size),
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.length,
        "projection_size": text.head or text.size.width,
        "pad_token_id": pad,
        "bos_token_id": None,
        "eos_token_id": 1,
    }


def _size(size: Size) -> dict[str, Any]:
    return {
        "hidden_size": size.width,
        "intermediate_size": size.mlp_dim,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.num_heads,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "attention_dropout": 0.0,
    }


def read_config(path: Path, tower: Tower | None = None) -> Siglip:
    """The architecture that a `config.json` states, of both towers or of one, or of the image
    tower inside another model.

    Args:
      path: the file.
      tower: the only one to look at.

    Raises:
      ValueError: if it states another architecture than SigLIP's.
    """
    card = read_settings(path)
    kind = card.get("model_type")
    if kind not in _KINDS:
        if inside := image_tower_inside(card):
            return Siglip(vision=_read_vision(*inside), text=None)
        known = ", ".join(_KINDS)
        raise ValueError(f"{path} is of model_type {kind!r}, not SigLIP; expected one of {known}")
    naflex, alone = _KINDS[kind]
    if alone is None and "vision_config" not in card and (code := _own_code(card)):
        raise ValueError(
            f"{path} states no architecture (there is no vision_config): its model is built by "
            f"{code}; use its open_clip files, open_clip_config.json and "
            "open_clip_model.safetensors, or give the architecture of one like it"
        )
    if any(str(name).endswith(_CLASSIFIES) for name in card.get("architectures", [])):
        # Its text_config is a default that belongs to nothing.
        return Siglip(vision=_read_vision(card.part("vision_config"), naflex), text=None)
    if alone == "image":
        return Siglip(vision=_read_vision(card, naflex), text=None)
    if alone == "text":
        return Siglip(vision=None, text=_read_text(card))
    part = card.part("vision_config")
    if tower is None:
        why = "without its head an image tower has nothing to compare texts with; read it alone"
        part.require("vision_use_head", (True,), True, why)
    vision = None if tower == "text" else _read_vision(part, naflex)
    text = None if tower == "image" else _read_text(card.part("text_config"))
    return Siglip(vision=vision, text=text)


def is_inside(path: Path) -> bool:
    """Whether what a `config.json` states is a tower inside another model."""
    return path.is_file() and read_settings(path).get("model_type") not in _KINDS


def rows_beside(path: Path) -> int | None:
    """Rows of the token embedding beside an image tower of a whole SigLIP."""
    if not path.is_file() or is_inside(path):
        return None
    return read_settings(path).part("text_config").get("vocab_size")


def _own_code(card: Settings) -> str | None:
    """What builds the model of a card, if it is not transformers' own class."""
    if name := card.get("open_clip_model_name"):
        return f"open_clip ({name})"
    if code := card.part("auto_map").get("AutoModel"):
        return f"code of its own ({code})"
    return "code of its own (auto_map)" if "auto_map" in card else None


def _read_vision(part: Settings, naflex: bool) -> Vision | NaFlexVision:
    part.require("num_channels", (3,), 3, "SigLIP has 3")
    part.require("vision_use_head", (True, False), True, "expected true or false")
    pool: Pool = "map" if part.get("vision_use_head", True) else "none"
    size, patch = _read_size(part), part.number("patch_size", 16)
    if not naflex:
        return Vision(size=size, patch=patch, res=part.number("image_size", 224), pool=pool)
    area = part.number("num_patches", 256)
    side = math.isqrt(area)
    if side * side != area:
        raise ValueError(f"{part.where}: num_patches is {area}, expected a square")
    return NaFlexVision(size=size, patch=patch, posemb_grid=side, pool=pool)


def _read_text(part: Settings) -> Text:
    size = _read_size(part)
    return Text(
        size=size,
        vocab_size=part.number("vocab_size", 32_000),
        length=part.number("max_position_embeddings", 64),
        head=part.number("projection_size", size.width),
    )


def _read_size(part: Settings) -> Size:
    part.require("hidden_act", _TANH, "gelu_pytorch_tanh", "SigLIP computes gelu_pytorch_tanh")
    part.require("layer_norm_eps", (1e-6,), 1e-6, "SigLIP has 1e-6")
    return Size(
        width=part.number("hidden_size", 768),
        depth=part.number("num_hidden_layers", 12),
        mlp_dim=part.number("intermediate_size", 3072),
        num_heads=part.number("num_attention_heads", 12),
    )


def pad_by_images(path: Path) -> int | None:
    """What would pad texts beside this image tower: its resampling tells SigLIP from SigLIP 2."""
    found = card_of(path)
    return {3: 1, 2: 0}.get(found[1].get("resample")) if found else None
