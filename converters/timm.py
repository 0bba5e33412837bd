"""timm: the image tower alone, `VisionTransformer` with its MAP head or without, or `NaFlexVit`.

Names and defaults are those of timm 1.0.31. A registered architecture states all
sizes, and `model_args` beside it what differs. Several of timm's SigLIP
architectures compute the exact GELU where big_vision computes its tanh
approximation; the configuration written here says tanh.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

from siglip_jax import checkpoints
from siglip_jax.classifier import Classifier
from siglip_jax.config import NaFlexVision, Pool, Siglip, Tower, Vision
from siglip_jax.messages import suggestions
from siglip_jax.preprocessing.profiles import ImageProfile, custom_profile
from siglip_jax.weights.layout import parameter_shapes

from .checkpoint import OpenCheckpoint, present
from .classifiers import head_names, labels_by_index, read_head
from .files import find_weights, open_file
from .format import Format, safetensors_in
from .json_file import Settings, read_settings, write_json
from .rules import CONV, Op, Rule, Step, dense, expand, heads, heads_out, norm
from .timm_images import pretrained_cfg, read_images
from .towers_inside import config_of_file
from .translation import closing_on_error, translate

CONFIG, WEIGHTS = "config.json", "model.safetensors"
CLASSIFIER = "head"
_PYTORCH = ("pytorch_model.bin", "pytorch_model.pth", "model.pth")

# Architectures whose activation is the exact GELU unless told otherwise.
_EXACT_GELU = ("vit_base_patch16_", "vit_large_patch16_siglip_2", "vit_large_patch16_siglip_3",
               "vit_large_patch16_siglip_gap_2", "vit_large_patch16_siglip_gap_3",
               "vit_so400m_patch14_")  # fmt: skip
# Arguments that change neither weights nor numbers.
_HARMLESS = {
    "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate",
    "drop_path_rate", "weight_init", "fix_init", "dynamic_img_size", "dynamic_img_pad",
    "strict_img_size", "in_chans", "num_classes",
}  # fmt: skip
_SIZES = {
    "embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size", "img_size", "global_pool",
}  # fmt: skip
# timm's words for the pooling.
_POOLS: dict[str, Pool] = {"map": "map", "avg": "gap", "": "none"}
_GAP = "_siglip_gap_"
_GAP_BASE = f"vit_base_patch16{_GAP}224"
_FIXED = {
    "act_layer": ("gelu_tanh", "gelu"),
    "class_token": (False,),
    "fc_norm": (False,),
    "pos_embed_grid_size": None,
    "pos_embed_interp_mode": ("bilinear",),
    "pos_embed_antialias": (True,),
}


def rules(naflex: bool, prefix: str = "") -> list[Rule]:
    """The table for an image tower; open_clip has it behind a `prefix`."""
    block, layer = "img/Transformer/encoderblock_{i}", f"{prefix}blocks.{{i}}"
    attention, every = f"{block}/MultiHeadDotProductAttention_0", ("query", "key", "value")
    ours, pool = "img/MAPHead_0", f"{prefix}attn_pool"
    if naflex:
        stem = [
            *dense("img/embedding", f"{prefix}embeds.proj"),
            Rule(("img/pos_embedding",), f"{prefix}embeds.pos_embed", Op("y x d -> 1 y x d")),
        ]
    else:
        stem = [
            *dense("img/embedding", f"{prefix}patch_embed.proj", CONV),
            Rule(("img/pos_embedding",), f"{prefix}pos_embed", Op("1 n d -> 1 n d")),
        ]
    return [
        *stem,
        *norm(f"{block}/LayerNorm_0", f"{layer}.norm1"),
        *heads(attention, every, f"{layer}.attn.qkv."),
        *heads_out(attention, f"{layer}.attn.proj"),
        *norm(f"{block}/LayerNorm_1", f"{layer}.norm2"),
        *dense(f"{block}/MlpBlock_0/Dense_0", f"{layer}.mlp.fc1"),
        *dense(f"{block}/MlpBlock_0/Dense_1", f"{layer}.mlp.fc2"),
        *norm("img/Transformer/encoder_norm", f"{prefix}norm"),
        Rule((f"{ours}/probe",), f"{pool}.latent", Op("1 1 d -> 1 1 d")),
        *heads(f"{ours}/MultiHeadDotProductAttention_0", ("query",), f"{pool}.q."),
        *heads(f"{ours}/MultiHeadDotProductAttention_0", ("key", "value"), f"{pool}.kv."),
        *heads_out(f"{ours}/MultiHeadDotProductAttention_0", f"{pool}.proj"),
        *norm(f"{ours}/LayerNorm_0", f"{pool}.norm"),
        *dense(f"{ours}/MlpBlock_0/Dense_0", f"{pool}.mlp.fc1"),
        *dense(f"{ours}/MlpBlock_0/Dense_1", f"{pool}.mlp.fc2"),
    ]


def steps(config: Siglip, tower: Tower | None = "image") -> list[Step]:
    """The steps from big_vision's image tower to timm's."""
    return expand(rules(config.naflex), parameter_shapes(config.only("image")))


@functools.cache
def architectures() -> dict[str, Vision | NaFlexVision]:
    """timm's names of the released image towers, with their head and without it."""
    rows = reversed(checkpoints.CHECKPOINTS)
    known = {row.timm.split(".")[0]: row.config.image_tower for row in rows}
    for name, vision in [*known.items()]:
        if isinstance(vision, Vision):
            headless = dataclasses.replace(vision, pool="gap")
            known[name.replace("_siglip_", _GAP)] = headless
    so400m = f"vit_so400m_patch14{_GAP}"
    for res in (448, 896):  # PaliGemma's
        known[f"{so400m}{res}"] = dataclasses.replace(known[f"{so400m}224"], res=res)
    return known


def exact_gelu(architecture: str) -> bool:
    """Whether timm computes the exact GELU for this architecture unless told otherwise."""
    return architecture.startswith(_EXACT_GELU)


def exact_gelu_of(config: Siglip) -> tuple[Tower, ...]:
    """The image tower, if timm's own configuration of one like it computes the exact GELU."""
    name, _ = architecture_of(config.image_tower)
    return ("image",) if exact_gelu(name) else ()


def architecture_of(vision: Vision | NaFlexVision) -> tuple[str, dict[str, Any]]:
    """An architecture and the arguments that make it `vision`.

    Raises:
      ValueError: for a NaFlex tower without its head, of which timm has none.
    """
    if isinstance(vision, NaFlexVision) and vision.pool != "map":
        raise ValueError(
            f"timm has no NaFlex tower with pool={vision.pool!r}; transformers and siglip_jax have"
        )
    for name, known in architectures().items():
        if known == vision:
            return name, {"act_layer": "gelu_tanh"}
    if vision.pool == "none":
        name, arguments = architecture_of(dataclasses.replace(vision, pool="gap"))
        return name, {**arguments, "global_pool": ""}
    size = vision.size
    arguments = {
        "patch_size": vision.patch,
        "embed_dim": size.width,
        "depth": size.depth,
        "num_heads": size.num_heads,
        "mlp_ratio": mlp_ratio(size.width, size.mlp_dim),
        "act_layer": "gelu_tanh",
    }
    if isinstance(vision, Vision):
        name = "vit_base_patch16_siglip_224" if vision.pool == "map" else _GAP_BASE
        return name, {**arguments, "img_size": vision.res}
    grid = [vision.posemb_grid] * 2
    return "naflexvit_base_patch16_siglip", {**arguments, "pos_embed_grid_size": grid}


def mlp_ratio(width: int, mlp_dim: int) -> float:
    """The ratio whose product with `width`, rounded down as PyTorch code does, is `mlp_dim`.

    >>> int(1152 * mlp_ratio(1152, 4304))
    4304
    """
    ratio = mlp_dim / width
    return ratio if int(width * ratio) == mlp_dim else math.nextafter(ratio, math.inf)


def write_files(
    folder: Path,
    config: Siglip,
    tower: Tower | None,
    *,
    images: ImageProfile | None = None,
    classifier: Classifier | None = None,
    **unused: Any,
) -> None:
    """The configuration."""
    said = card(config.image_tower, images)
    if classifier is not None:
        classes = {"num_classes": len(classifier.labels), "label_names": list(classifier.labels)}
        said |= classes
        said["pretrained_cfg"] |= {**classes, "classifier": CLASSIFIER}
    write_json(folder / CONFIG, said)


def card(vision: Vision | NaFlexVision, images: ImageProfile | None = None) -> dict[str, Any]:
    """What `config.json` says, of preprocessing too."""
    images = images or custom_profile(Siglip(vision=vision, text=None), 0, "open_clip").image
    name, arguments = architecture_of(vision)
    side = vision.res if isinstance(vision, Vision) else vision.posemb_grid * vision.patch
    naflex = isinstance(vision, NaFlexVision)
    return {
        "architecture": name,
        "num_classes": 0,
        "num_features": vision.size.width,
        "global_pool": next(word for word, pool in _POOLS.items() if pool == vision.pool),
        "model_args": arguments,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, side, side],
            "fixed_input_size": not naflex,
            **pretrained_cfg(images),
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "embeds.proj" if naflex else "patch_embed.proj",
            "classifier": "head",
        },
    }


def open_folder(
    path: Path,
    *,
    config: Siglip | None = None,
    weights: Path | None = None,
    tower: Tower | None = None,
) -> OpenCheckpoint:
    """Opens a folder of timm.

    Raises:
      ValueError: if it holds another architecture or is damaged.
    """
    notes: tuple[str, ...] = ()
    stated = (path / CONFIG).is_file()
    pad, given = None, config is not None
    if config is None:
        card = read_settings(path / CONFIG)
        vision, notes = read_card(card)
        config, pad = Siglip(vision=vision, text=None), _pad(card)
    config = config.only(tower, str(path)).only("image")
    stored = open_file(weights or find_weights(path, (WEIGHTS, *_PYTORCH)))
    with closing_on_error(stored):
        head = head_names(stored, CLASSIFIER)
        if given:
            # timm pools with the mean where it has no head.
            config = config_of_file(config, stored.shapes, r"attn_pool\.latent", "gap")
        reader, dropped = translate(stored, steps(config), apart=head)
        # timm does not say how probabilities are made; its own examples take the softmax.
        labels = _labels(path / CONFIG) if head else None
        # Without the pooling head it is given the mean of the patches.
        pooling = "map" if config.pool == "map" else "mean"
        classifier = read_head(stored, CLASSIFIER, labels, pooling, "softmax")
        return OpenCheckpoint(
            format=FORMAT.name,
            path=path,
            reader=reader,
            files=(*present(path / CONFIG), *stored.files),
            config=config,
            dropped=dropped,
            images=read_images(read_settings(path / CONFIG), config) if stated else None,
            pad=pad,
            notes=notes,
            classifier=classifier,
            reports=reader.reports,
        )


def _labels(path: Path) -> tuple[str, ...] | None:
    card = read_settings(path) if path.is_file() else Settings({}, str(path))
    inside = card.part("pretrained_cfg")
    return labels_by_index(card if "label_names" in card else inside, "label_names")


def _pad(card: Settings) -> int | None:
    """What pads the texts beside a released image tower, which its tag tells: SigLIP or SigLIP 2.

    PaliGemma's towers, of either version, were taken from SigLIP.
    """
    tag = str(card.part("pretrained_cfg").get("tag", ""))
    if tag.startswith("v2_webli"):
        return 0
    return 1 if tag.startswith(("webli", "pali")) else None


def read_card(settings: Settings) -> tuple[Vision | NaFlexVision, tuple[str, ...]]:
    """The image tower that a `config.json` states, and notes about it.

    Raises:
      ValueError: if it is not one of SigLIP's, or has arguments that are unknown here.
    """
    name = settings.get("architecture")
    vision, notes = read_architecture(str(name), settings.where, settings.part("model_args"))
    return vision, notes


def read_architecture(
    name: str, where: str, arguments: Settings
) -> tuple[Vision | NaFlexVision, tuple[str, ...]]:
    """The image tower of timm's architecture `name` with `arguments`; see `read_card`."""
    name = name.split(".")[0]
    so400m14 = _so400m14()
    known = architectures() | {
        "vit_so400m_patch14_siglip_378": so400m14,
        f"vit_so400m_patch14{_GAP}378": dataclasses.replace(so400m14, pool="gap"),
    }
    if name not in known:
        near = suggestions(name, known, 2)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"{where}: timm's {name!r} is not an image tower of SigLIP{hint}")
    if unknown := sorted(set(arguments.values) - _HARMLESS - _SIZES - set(_FIXED)):
        raise ValueError(f"{arguments.where}: {unknown[0]} is not a setting that SigLIP has")
    for key, allowed in _FIXED.items():
        if allowed is not None:
            arguments.require(key, allowed, allowed[0], f"SigLIP has {allowed[0]}")
    vision = _with_arguments(known[name], arguments)
    notes: tuple[str, ...] = ()
    if arguments.get("act_layer", "gelu" if exact_gelu(name) else "gelu_tanh") == "gelu":
        notes = (
            f"timm computes the exact GELU in the image tower ({name}); "
            "big_vision and siglip_jax its tanh approximation",
        )
    return vision, notes


def _with_arguments(vision: Vision | NaFlexVision, arguments: Settings) -> Vision | NaFlexVision:
    size = vision.size
    width = arguments.number("embed_dim", size.width)
    ratio = arguments.get("mlp_ratio", mlp_ratio(size.width, size.mlp_dim))
    changed = dataclasses.replace(
        size,
        width=width,
        depth=arguments.number("depth", size.depth),
        num_heads=arguments.number("num_heads", size.num_heads),
        mlp_dim=int(width * ratio),
    )
    patch = arguments.number("patch_size", vision.patch)
    pool = _read_pool(vision, arguments)
    if isinstance(vision, NaFlexVision):
        grid = arguments.number("pos_embed_grid_size", vision.posemb_grid)
        return dataclasses.replace(vision, size=changed, patch=patch, posemb_grid=grid, pool=pool)
    res = arguments.number("img_size", vision.res)
    if (res // patch, patch) == (vision.grid, vision.patch):
        res = vision.res  # 378 and 384 are the same 27 patches of 14 px
    return Vision(size=changed, patch=patch, res=res, pool=pool)


def _read_pool(vision: Vision | NaFlexVision, arguments: Settings) -> Pool:
    word = arguments.values.get("global_pool")
    if word is None:
        return vision.pool
    if word not in _POOLS:
        raise ValueError(
            f"{arguments.where}: global_pool is {word!r}, expected one of map, avg, '' (none)"
        )
    if word == "avg" and vision.pool == "map" and "fc_norm" not in arguments:
        raise ValueError(
            f"{arguments.where}: global_pool is 'avg' without fc_norm false, so that timm puts the "
            "last norm after the mean; SigLIP has it before"
        )
    return _POOLS[word]


def _so400m14() -> Vision | NaFlexVision:
    return checkpoints.find("siglip_so400m14_384").config.image_tower


def _recognises(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and "architecture" in read_settings(folder / CONFIG)


FORMAT = Format(
    name="timm",
    config=CONFIG,
    weights=(WEIGHTS, *_PYTORCH),
    towers=("image",),
    classifier=(CLASSIFIER, "map"),
    tensors=r"blocks\.\d+\.|patch_embed\.|embeds\.|attn_pool\.",
    recognises=_recognises,
    open=open_folder,
    # In one file: timm reads no other.
    write_weights=safetensors_in(WEIGHTS),
    write_files=write_files,
    steps=steps,
    exact_gelu=lambda config, pad: exact_gelu_of(config),
)
