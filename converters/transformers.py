"""transformers: `SiglipModel` (SigLIP, and SigLIP 2 at fixed resolution) and `Siglip2Model`.

The names are those of transformers 5.23 `models/siglip` and `models/siglip2`. What a
`config.json` leaves out has the default of transformers' configuration class, and is
read so: that is the file's meaning, not a guess.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.config import NaFlexVision, Siglip, Size, Text, Vision
from siglip_jax.preprocessing.profiles import custom_profile
from siglip_jax.weights.reader import Reader

from . import hf_tokenizer
from .files import find_weights, open_file
from .json_file import Settings, read_settings, write_json
from .rules import CONV, DENSE, Op, Rule, Step, dense, expand, heads, heads_out, norm
from .safetensors_file import SHARD_BYTES as SHARD_BYTES
from .source import (
    Source,
    Tower,
    image_only,
    released_vocabulary,
    text_only,
    tower_shapes,
    vocabulary_beside,
)
from .translated import translate

FORMAT = "transformers"
CONFIG, WEIGHTS, IMAGES = "config.json", "model.safetensors", "preprocessor_config.json"
TOWERS: tuple[Tower | None, ...] = (None, "image", "text")
_PYTORCH = "pytorch_model.bin"
_HEAD = "text_model.head"

# Buffers that versions before 4.31 saved with the weights.
DROP = {r".*\.embeddings\.position_ids": "position-id buffer"}

_ALL = ("query", "key", "value")
_TANH = ("gelu_pytorch_tanh", "gelu_tanh", "gelu_new", "gelu_fast")
_KINDS: dict[str, tuple[bool, Tower | None]] = {
    "siglip": (False, None),
    "siglip_vision_model": (False, "image"),
    "siglip_text_model": (False, "text"),
    "siglip2": (True, None),
    "siglip2_vision_model": (True, "image"),
    "siglip2_text_model": (True, "text"),
}


def _encoder(ours: str, theirs: str) -> list[Rule]:
    block, layer = f"{ours}/encoderblock_{{i}}", f"{theirs}.encoder.layers.{{i}}"
    attention = f"{block}/MultiHeadDotProductAttention_0"
    return [
        *norm(f"{block}/LayerNorm_0", f"{layer}.layer_norm1"),
        *heads(attention, ("query",), f"{layer}.self_attn.q_proj."),
        *heads(attention, ("key",), f"{layer}.self_attn.k_proj."),
        *heads(attention, ("value",), f"{layer}.self_attn.v_proj."),
        *heads_out(attention, f"{layer}.self_attn.out_proj"),
        *norm(f"{block}/LayerNorm_1", f"{layer}.layer_norm2"),
        *dense(f"{block}/MlpBlock_0/Dense_0", f"{layer}.mlp.fc1"),
        *dense(f"{block}/MlpBlock_0/Dense_1", f"{layer}.mlp.fc2"),
    ]


def rules(config: Siglip) -> list[Rule]:
    """The table for both towers of a model like `config`."""
    pool, map_head = "vision_model.head", "img/MAPHead_0"
    stem = DENSE if config.naflex else CONV
    grid = Op("y x d -> (y x) d" if config.naflex else "1 n d -> n d")
    table = [
        *dense("img/embedding", "vision_model.embeddings.patch_embedding", stem),
        Rule(("img/pos_embedding",), "vision_model.embeddings.position_embedding.weight", grid),
        *_encoder("img/Transformer", "vision_model"),
        *norm("img/Transformer/encoder_norm", "vision_model.post_layernorm"),
        Rule((f"{map_head}/probe",), f"{pool}.probe", Op("1 1 d -> 1 1 d")),
        *heads(f"{map_head}/MultiHeadDotProductAttention_0", _ALL, f"{pool}.attention.in_proj_"),
        *heads_out(f"{map_head}/MultiHeadDotProductAttention_0", f"{pool}.attention.out_proj"),
        *norm(f"{map_head}/LayerNorm_0", f"{pool}.layernorm"),
        *dense(f"{map_head}/MlpBlock_0/Dense_0", f"{pool}.mlp.fc1"),
        *dense(f"{map_head}/MlpBlock_0/Dense_1", f"{pool}.mlp.fc2"),
        Rule(
            ("txt/Embed_0/embedding",),
            "text_model.embeddings.token_embedding.weight",
            Op("v d -> v d"),
        ),
        Rule(
            ("txt/pos_embedding",),
            "text_model.embeddings.position_embedding.weight",
            Op("1 n d -> n d"),
        ),
        *_encoder("txt/Encoder_0", "text_model"),
        *norm("txt/Encoder_0/encoder_norm", "text_model.final_layer_norm"),
        *dense("txt/head", _HEAD),
        Rule(("t",), "logit_scale", Op("1 -> 1")),
        Rule(("b",), "logit_bias", Op("1 -> 1")),
    ]
    return table


def steps(config: Siglip, tower: Tower | None = None) -> list[Step]:
    """The steps from big_vision's tensors to those of transformers."""
    made = expand(rules(config), tower_shapes(config, tower))
    if config.text.head is None and tower != "image":
        # transformers has no text tower without a projection: it gets one that does nothing.
        width = config.text.size.width
        made += [
            Step((), f"{_HEAD}.weight", Op("->"), (), (width, width), "identity"),
            Step((), f"{_HEAD}.bias", Op("->"), (), (width,), "zeros"),
        ]
    return made


def write_files(
    folder: Path,
    config: Siglip,
    tower: Tower | None,
    *,
    pad: int | None,
    dtype: str,
    vocabulary: Path | None,
    **unused: Any,
) -> None:
    """Everything but the weights: configuration, image processor, tokenizer."""
    kind = "siglip2" if config.naflex else "siglip"
    name = "Siglip2" if config.naflex else "Siglip"
    vision, text = config.vision, config.text
    picture = {"patch_size": vision.patch, "num_channels": 3}
    if isinstance(vision, NaFlexVision):
        picture["num_patches"] = vision.posemb_grid**2
    else:
        picture["image_size"] = vision.res
    parts = {
        "vision": {
            "model_type": f"{kind}_vision_model",
            **_size(vision.size),
            **picture,
            "vision_use_head": True,
        },
        "text": {
            "model_type": f"{kind}_text_model",
            **_size(text.size),
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.length,
            "projection_size": text.head or text.size.width,
            "pad_token_id": pad,
            "bos_token_id": None,
            "eos_token_id": 1,
        },
    }
    if tower is None:
        card = {"architectures": [f"{name}Model"], "model_type": kind}
        card |= {"vision_config": parts["vision"], "text_config": parts["text"]}
    else:
        part = "vision" if tower == "image" else "text"
        card = {"architectures": [f"{name}{part.capitalize()}Model"], **parts[part]}
    # Both spellings, because transformers 4 reads one and 5 the other.
    write_json(folder / CONFIG, {**card, "dtype": dtype, "torch_dtype": dtype})
    if tower != "text":
        write_json(folder / IMAGES, _image_processor(config, name, pad))
    if tower != "image" and vocabulary is not None and pad is not None:
        hf_tokenizer.write(folder, vocabulary, pad, text.length, f"{name}Processor")


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


def _image_processor(config: Siglip, name: str, pad: int | None) -> dict[str, Any]:
    profile = custom_profile(config, 0 if pad is None else pad, "transformers").image
    made: dict[str, Any] = {
        "image_processor_type": f"{name}ImageProcessor",
        "processor_class": f"{name}Processor",
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": {"torch_bicubic": 3, "torch_bilinear": 2}[profile.resize],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    if isinstance(config.vision, NaFlexVision):
        made |= {"patch_size": config.vision.patch, "max_num_patches": profile.max_patches}
    else:
        made["size"] = {"height": profile.res, "width": profile.res}
    return made


def open_folder(path: Path, *, config: Siglip | None = None, weights: Path | None = None) -> Source:
    """Opens a folder of transformers.

    Args:
      path: the folder.
      config: the architecture, in place of `config.json`'s.
      weights: the file of weights, if it is not the one transformers would take.

    Raises:
      ValueError: if it holds another architecture or is damaged.
    """
    tower: Tower | None = None
    if config is None:
        config, tower = read_config(path / CONFIG)
    stored = open_file(weights or find_weights(path, (WEIGHTS, _PYTORCH)))
    if tower != "image" and _head_does_nothing(stored, config.text):
        text = dataclasses.replace(config.text, head=None)
        config = dataclasses.replace(config, text=text)
    reader, dropped = translate(stored, steps(config, tower), DROP)
    for name in (f"{_HEAD}.weight", f"{_HEAD}.bias"):
        if name in dropped:
            dropped[name] = "projection that changes nothing"
    if tower == "image":
        pad = _pad_by_images(path)
    else:
        known = released_vocabulary(config)
        pad = known.pad if known else hf_tokenizer.read_pad(path)
    return Source(
        format=FORMAT,
        path=path,
        reader=reader,
        files=stored.files,
        config=config,
        tower=tower,
        dropped=dropped,
        vocabulary=vocabulary_beside(path, config),
        pad=pad,
    )


def _pad_by_images(path: Path) -> int | None:
    """What would pad texts beside this image tower: its resampling tells SigLIP from SigLIP 2."""
    if not (path / IMAGES).is_file():
        return None
    return {3: 1, 2: 0}.get(read_settings(path / IMAGES).get("resample"))


def read_config(path: Path) -> tuple[Siglip, Tower | None]:
    """The architecture that a `config.json` states, and its only tower if it has one.

    Raises:
      ValueError: if it states another architecture than SigLIP's.
    """
    card = read_settings(path)
    kind = card.get("model_type")
    if kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise ValueError(f"{path} is of model_type {kind!r}, not SigLIP; expected one of {known}")
    naflex, tower = _KINDS[kind]
    if tower == "image":
        return image_only(_read_vision(card, naflex)), tower
    if tower == "text":
        return text_only(_read_text(card)), tower
    vision = _read_vision(card.part("vision_config"), naflex)
    return Siglip(vision=vision, text=_read_text(card.part("text_config"))), None


def _read_vision(part: Settings, naflex: bool) -> Vision | NaFlexVision:
    part.require("num_channels", (3,), 3, "SigLIP has 3")
    part.require("vision_use_head", (True,), True, "a SigLIP image tower pools with its head")
    size, patch = _read_size(part), part.number("patch_size", 16)
    if not naflex:
        return Vision(size=size, patch=patch, res=part.number("image_size", 224))
    area = part.number("num_patches", 256)
    side = math.isqrt(area)
    if side * side != area:
        raise ValueError(f"{part.where}: num_patches is {area}, expected a square")
    return NaFlexVision(size=size, patch=patch, posemb_grid=side)


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


def _head_does_nothing(stored: Reader, text: Text) -> bool:
    width = text.size.width
    names = (f"{_HEAD}.weight", f"{_HEAD}.bias")
    if any(name not in stored.shapes for name in names) or text.head != width:
        return False
    if [stored.shapes[name].shape for name in names] != [(width, width), (width,)]:
        return False
    weight, bias = (stored.read(name) for name in names)
    return not bias.any() and bool((weight == np.eye(width, dtype=weight.dtype)).all())
