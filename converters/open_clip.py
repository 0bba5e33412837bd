"""open_clip: a timm image tower, its own text tower, temperature and bias.

Names and defaults are those of open_clip 3.3.0. Its stock configurations compute the
exact GELU in the text towers of SigLIP 1 and in several image towers. What is written here
says tanh for the text tower. An image tower has a name in open_clip and no settings: where
that name stands for the exact GELU, so does the folder, with a note; `exact` puts a
`visual/config.json` for timm beside it that says tanh, which open_clip finds by nothing but
its full path, so that such a folder cannot be moved. The same file says the sizes that no
name stands for; without `exact` it is named relative to the folder.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from siglip_jax.config import NaFlexVision, Siglip, Size, Text, Tower, Vision
from siglip_jax.preprocessing.profiles import (
    ImageProfile,
    TextProfile,
    custom_profile,
)
from siglip_jax.preprocessing.tokenizer_json import TextSettings
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
from .open_clip_images import preprocess_cfg, read_images
from .rules import Op, Rule, Step, dense, expand, heads, heads_out, norm
from .towers_inside import config_of_file, only_behind
from .translation import closing_on_error, translate

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
    images: ImageProfile | None = None,
    text_profile: TextProfile | None = None,
    exact: bool = False,
    **unused: Any,
) -> None:
    """Everything but the weights: configuration, preprocessing, tokenizer."""
    vision, text = config.image_tower, config.text_tower
    name, _ = timm.architecture_of(vision)
    form = form_of(config, exact)
    if form != "named":
        (folder / VISUAL).mkdir()
        write_json(folder / VISUAL / timm.CONFIG, timm.card(vision))
        name = f"{_LOCAL}{destination.resolve() / VISUAL if form == 'fixed' else VISUAL}"
    clean = "whitespace"
    if text_profile is None or text_profile.clean == "canonicalize":
        clean = "canonicalize"
    images = images or custom_profile(config, pad or 0, "open_clip").image
    side = images.res if isinstance(vision, Vision) else vision.posemb_grid * vision.patch
    text_cfg: dict[str, Any] = {
        "context_length": text.length,
        "vocab_size": text.vocab_size,
        "hf_tokenizer_name": tokenizer_name,
        "tokenizer_kwargs": {"clean": clean},
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
    write_json(folder / CONFIG, {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg(images)})
    if vocabulary is not None and text_profile is not None:
        hf_tokenizer.write(folder, vocabulary, _cleaned(text_profile, vocabulary))


def _cleaned(text: TextProfile, vocabulary: Path) -> TextProfile:
    """What is left for the tokenizer to do with texts that open_clip has cleaned before."""
    if text.clean != "canonicalize":
        return text
    released = hf_tokenizer.family(vocabulary) == hf_tokenizer.FAMILIES[text.pad]
    if not released:
        return dataclasses.replace(text, clean="none")
    # Such a text is as it was after what the released classes do.
    if text.pad == 1:
        return dataclasses.replace(text, lower="unicode", clean="delete_punctuation")
    return dataclasses.replace(text, lower="none", clean="none")


def form_of(config: Siglip, exact: bool) -> Literal["named", "relative", "fixed"]:
    """How the folder says its image tower: by timm's name, by `visual/` relative to the working
    directory, or by its full path."""
    name, arguments = timm.architecture_of(config.image_tower)
    if set(arguments) == {"act_layer"} and not (exact and timm.exact_gelu(name)):
        return "named"
    return "fixed" if exact else "relative"


def written_gelu(config: Siglip, exact: bool) -> tuple[Tower, ...]:
    """The image tower, if open_clip computes the exact GELU in it as it is written."""
    return timm.exact_gelu_of(config) if form_of(config, exact) == "named" else ()


def _notes(config: Siglip, exact: bool, own_tokenizer: bool) -> tuple[str, ...]:
    name, _ = timm.architecture_of(config.image_tower)
    notes: list[str] = []
    if written_gelu(config, exact):
        notes.append(
            f"open_clip computes the exact GELU in the image tower, which it knows by its name "
            f"({name}) alone; big_vision and siglip_jax its tanh approximation. exact (--exact) "
            "writes tanh, in a folder that cannot be moved"
        )
    form = form_of(config, exact)
    if form == "relative":
        notes.append(
            "open_clip has no name for an image tower of these sizes: the folder loads only where "
            "it is the working directory, as local-dir:. (exact, --exact, writes its full path "
            "instead, and the folder cannot be moved)"
        )
    if form == "fixed":
        notes.append(
            f"{CONFIG} names {VISUAL}/ by its full path on this machine, as open_clip needs it: "
            "the folder can be neither moved nor uploaded"
        )
    if own_tokenizer:
        notes.append(
            "if the folder is uploaded, hf_tokenizer_name has to be the name of its repository"
        )
    return tuple(notes)


def _text_settings(path: Path) -> TextSettings | None:
    found = hf_tokenizer.read_text_settings(path)
    if found is None or not (path / CONFIG).is_file():
        return found
    card = read_settings(path / CONFIG)
    model = card.part("model_cfg") if "model_cfg" in card else card
    cleaning = model.part("text_cfg").part("tokenizer_kwargs").get("clean")
    if cleaning != "canonicalize":
        return found
    return TextSettings("unicode", "canonicalize", found.own)


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
    with closing_on_error(stored):
        if given:
            config = config_of_file(config, stored.shapes, r"visual\.trunk\.attn_pool\.latent")
        # Both towers and their scale are one file: of one tower the rest of it is left out.
        apart = only_behind(_PREFIX[tower]) if tower else {}
        reader, dropped = translate(stored, steps(config), {**DROP, **apart})
        known = released_vocabulary(config)
        if tower == "image" and (path / CONFIG).is_file():
            card = read_settings(path / CONFIG)
            card = card.part("model_cfg") if "model_cfg" in card else card
            known = vocabulary_of_rows(card.part("text_cfg").get("vocab_size"))
        pad = known.pad if known else hf_tokenizer.read_pad(path)
        stated = (path / CONFIG).is_file()
        return OpenCheckpoint(
            format=FORMAT.name,
            path=path,
            reader=reader,
            files=(*present(path / CONFIG, path / VISUAL / timm.CONFIG), *stored.files),
            config=config,
            dropped=dropped,
            vocabulary=vocabulary_beside(path, config),
            pad=pad,
            text_settings=_text_settings(path),
            images=read_images(read_settings(path / CONFIG), config, pad) if stated else None,
            notes=notes,
            reports=reader.reports,
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
    written_gelu=written_gelu,
    notes=_notes,
    has_exact=True,
)
