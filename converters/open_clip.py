"""open_clip: a timm image tower, its own text tower, temperature and bias.

Names and defaults are those of open_clip 3.3.0. Its stock configurations compute the
exact GELU in the text towers of SigLIP 1 and in several image towers; the
configuration written here says tanh everywhere. For an image tower open_clip has no
setting for that, so that the folder holds a `visual/config.json` for timm and names it
by its full path: a folder that was moved has to name the new one.
"""

from pathlib import Path
from typing import Any

from siglip_jax.config import NaFlexVision, Siglip, Size, Text, Tower, Vision
from siglip_jax.weights.layout import parameter_shapes

from . import hf_tokenizer, timm
from .checkpoint import (
    OpenCheckpoint,
    present,
    released_vocabulary,
    vocabulary_beside,
    vocabulary_of_rows,
)
from .files import find_weights, open_file
from .format import Format, safetensors_in
from .json_file import Settings, read_settings, write_json
from .rules import Op, Rule, Step, dense, expand, heads, heads_out, norm
from .towers_inside import config_of_file, only_behind
from .translation import translate

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
VISUAL = "visual"
_OTHERS = (
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
)
_LOCAL = "local-dir:"
_PREFIX: dict[Tower, str] = {"image": "visual.", "text": "text."}
DROP = {r"(text\.)?attn_mask": "attention-mask buffer"}


def rules(config: Siglip) -> list[Rule]:
    """The table for a model like `config`."""
    block, layer = "txt/Encoder_0/encoderblock_{i}", "text.transformer.resblocks.{i}"
    attention = f"{block}/MultiHeadDotProductAttention_0"
    return [
        *timm.rules(config.naflex, "visual.trunk."),
        Rule(("txt/Embed_0/embedding",), "text.token_embedding.weight", Op("v d -> v d")),
        Rule(("txt/pos_embedding",), "text.positional_embedding", Op("1 n d -> n d")),
        *norm(f"{block}/LayerNorm_0", f"{layer}.ln_1"),
        *heads(attention, ("query", "key", "value"), f"{layer}.attn.in_proj_"),
        *heads_out(attention, f"{layer}.attn.out_proj"),
        *norm(f"{block}/LayerNorm_1", f"{layer}.ln_2"),
        *dense(f"{block}/MlpBlock_0/Dense_0", f"{layer}.mlp.c_fc"),
        *dense(f"{block}/MlpBlock_0/Dense_1", f"{layer}.mlp.c_proj"),
        *norm("txt/Encoder_0/encoder_norm", "text.ln_final"),
        *dense("txt/head", "text.text_projection"),
        Rule(("t",), "logit_scale", Op("1 -> ")),
        Rule(("b",), "logit_bias", Op("1 -> ")),
    ]


def steps(config: Siglip, tower: Tower | None = None) -> list[Step]:
    """The steps from big_vision's tensors to open_clip's."""
    return expand(rules(config), parameter_shapes(config.only(tower)))


def write_files(
    folder: Path,
    config: Siglip,
    tower: Tower | None,
    *,
    destination: Path,
    pad: int | None,
    vocabulary: Path | None,
    tokenizer_name: str,
    **unused: Any,
) -> None:
    """Everything but the weights: configuration, preprocessing, tokenizer."""
    vision, text = config.image_tower, config.text_tower
    name, arguments = timm.architecture_of(vision)
    if timm.exact_gelu(name) or set(arguments) != {"act_layer"}:
        (folder / VISUAL).mkdir()
        write_json(folder / VISUAL / timm.CONFIG, timm.card(vision))
        name = f"{_LOCAL}{destination.resolve() / VISUAL}"
    side = vision.res if isinstance(vision, Vision) else vision.posemb_grid * vision.patch
    text_cfg: dict[str, Any] = {
        "context_length": text.length,
        "vocab_size": text.vocab_size,
        "hf_tokenizer_name": tokenizer_name,
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": text.size.width,
        "heads": text.size.num_heads,
        "layers": text.size.depth,
        "mlp_ratio": timm.mlp_ratio(text.size.width, text.size.mlp_dim),
        "no_causal_mask": True,
        "pool_type": "last",
        **({"proj_type": "none"} if text.head is None else {"proj_bias": True}),
        "norm_kwargs": {"eps": 1e-6},
        "act_kwargs": {"approximate": "tanh"},
    }
    model_cfg = {
        "embed_dim": config.embed_dim,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": side,
            "timm_model_name": name,
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": text_cfg,
    }
    preprocess_cfg = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    write_json(folder / CONFIG, {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg})
    if vocabulary is not None and pad is not None:
        hf_tokenizer.write(folder, vocabulary, pad, text.length)


def open_folder(
    path: Path,
    *,
    config: Siglip | None = None,
    weights: Path | None = None,
    tower: Tower | None = None,
) -> OpenCheckpoint:
    """Opens a folder of open_clip, or a file of weights in it.

    Args:
      path: the folder.
      config: the architecture, in place of `open_clip_config.json`'s.
      weights: a state dict or training checkpoint, if not the one open_clip would take.
      tower: the only one to read; the other may be no tower of SigLIP.

    Raises:
      ValueError: if it holds another architecture or is damaged.
    """
    notes: tuple[str, ...] = ()
    given = config is not None
    if config is None:
        config, notes = read_config(path / CONFIG, tower)
    config = config.only(tower, str(path))
    stored = open_file(weights or find_weights(path, (WEIGHTS, *_OTHERS)))
    if given:
        config = config_of_file(config, stored.shapes, r"visual\.trunk\.attn_pool\.latent")
    # Both towers and their scale are one file: all but one tower is left out if that was asked for.
    apart = only_behind(_PREFIX[tower]) if tower else {}
    reader, dropped = translate(stored, steps(config), {**DROP, **apart})
    known = released_vocabulary(config)
    if tower == "image" and (path / CONFIG).is_file():
        card = read_settings(path / CONFIG)
        card = card.part("model_cfg") if "model_cfg" in card else card
        known = vocabulary_of_rows(card.part("text_cfg").get("vocab_size"))
    return OpenCheckpoint(
        format=FORMAT.name,
        path=path,
        reader=reader,
        files=(*present(path / CONFIG, path / VISUAL / timm.CONFIG), *stored.files),
        config=config,
        dropped=dropped,
        vocabulary=vocabulary_beside(path, config),
        pad=known.pad if known else hf_tokenizer.read_pad(path),
        notes=notes,
    )


def read_config(path: Path, tower: Tower | None = None) -> tuple[Siglip, tuple[str, ...]]:
    """The architecture that an `open_clip_config.json` states, and notes about it.

    Args:
      path: the file.
      tower: the only one to look at.

    Raises:
      ValueError: if it states another architecture than SigLIP's.
    """
    card = read_settings(path)
    model = card.part("model_cfg") if "model_cfg" in card else card
    model.require("quick_gelu", (False,), False, "SigLIP computes the tanh approximation")
    vision, text, notes, text_notes = None, None, (), ()
    if tower != "image":
        text, text_notes = _read_text(model.part("text_cfg"), model.number("embed_dim"))
    if tower != "text":
        vision, notes = _read_vision(path, model.part("vision_cfg"))
    return Siglip(vision=vision, text=text), (*notes, *text_notes)


def _read_vision(path: Path, part: Settings) -> tuple[Vision | NaFlexVision, tuple[str, ...]]:
    name = part.get("timm_model_name")
    if name is None:
        raise ValueError(f"{part.where} has no timm_model_name: not an image tower of SigLIP")
    part.require("timm_pool", ("map",), "avg", "SigLIP pools with map")
    part.require("timm_proj", ("none", ""), "linear", "SigLIP has none")
    if not name.startswith(_LOCAL):
        return timm.read_architecture(name, part.where, Settings({}, part.where))
    beside = path.parent / VISUAL / timm.CONFIG
    there = Path(name.removeprefix(_LOCAL)) / timm.CONFIG
    return timm.read_card(read_settings(beside if beside.is_file() else there))


def _read_text(part: Settings, embed_dim: int) -> tuple[Text, tuple[str, ...]]:
    if "hf_model_name" in part:
        raise ValueError(
            f"{part.where}: hf_model_name is {part.get('hf_model_name')!r}, "
            "not a text tower of SigLIP; its image tower can be read alone (tower 'image')"
        )
    part.require("no_causal_mask", (True,), False, "SigLIP's text tower has no causal mask")
    part.require("pool_type", ("last",), "argmax", "SigLIP pools the last position")
    part.require("embed_cls", (False,), False, "SigLIP's text tower has no class token")
    eps = part.part("norm_kwargs")
    eps.require("eps", (1e-6,), 1e-5, "SigLIP has 1e-6")
    width = part.number("width", 512)
    headless = part.get("proj_type", "linear") == "none"
    if not headless:
        part.require("proj_bias", (True,), False, "SigLIP's projection has a bias")
    size = Size(
        width=width,
        depth=part.number("layers", 12),
        num_heads=part.number("heads", 8),
        mlp_dim=int(width * part.get("mlp_ratio", 4.0)),
    )
    text = Text(
        size=size,
        vocab_size=part.number("vocab_size", 49_408),
        length=part.number("context_length", 77),
        head=None if headless else embed_dim,
    )
    if part.part("act_kwargs").get("approximate") == "tanh":
        return text, ()
    return text, (
        "open_clip computes the exact GELU in the text tower; "
        "big_vision and siglip_jax its tanh approximation",
    )


def _exact_gelu(config: Siglip, pad: int | None) -> tuple[Tower, ...]:
    # The stock text towers of SigLIP 2, padded with 0, say tanh.
    return (*timm.exact_gelu_of(config), *(("text",) if pad != 0 else ()))


FORMAT = Format(
    name="open_clip",
    config=CONFIG,
    weights=(WEIGHTS, *_OTHERS),
    others=(f"{VISUAL}/{timm.CONFIG}", hf_tokenizer.CONFIG),
    towers=(None,),
    pools=("map",),
    tensors=r"visual\.|text\.transformer\.resblocks\.",
    recognises=lambda folder: (folder / CONFIG).is_file(),
    open=open_folder,
    # In one file: open_clip reads no other.
    write_weights=safetensors_in(WEIGHTS),
    write_files=write_files,
    steps=steps,
    vocabulary=True,
    needs_pad=lambda config, tower, vocabulary: vocabulary,
    exact_gelu=_exact_gelu,
)
