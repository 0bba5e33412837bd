"""The parameter table of a model: every name and shape, from its configuration alone.

This is big_vision's tree, flattened with '/': `models/vit.py`,
`models/proj/image_text/{two_towers,text_transformer,naflex_vit}.py` at 0127fb6.
It is written out here rather than traced so that tables, listings and file
checks need no jax; tests hold it equal to `eval_shape` of the models.

A tower's blocks come in one of two forms. *Loop*: one subtree
`encoderblock_<i>` per layer. *Scan*: one subtree `encoderblock` whose tensors
have a leading layer axis.
"""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from siglip_jax.config import Execution, NaFlexVision, Siglip, Size, Text, Tower, Vision
from siglip_jax.weights.int8 import int8_shapes, stored_dtype

Shapes = dict[str, tuple[int, ...]]

PREFIX: dict[Tower, str] = {"image": "img", "text": "txt"}
IMAGE_ENCODER = "img/Transformer"
# big_vision: the encoder is called differently in the two towers.
TEXT_ENCODER = "txt/Encoder_0"

_BLOCK = re.compile(rf"({IMAGE_ENCODER}|{TEXT_ENCODER})/encoderblock(?:_(\d+))?/(.+)")


class BlockName(NamedTuple):
    """A name inside a block, taken apart; `layer` is None in scan form."""

    encoder: str
    layer: int | None
    leaf: str


def split_block_name(name: str) -> BlockName | None:
    """Encoder, layer and leaf of a parameter inside a block; None for any other name.

    >>> split_block_name("img/Transformer/encoderblock_3/LayerNorm_0/bias")
    BlockName(encoder='img/Transformer', layer=3, leaf='LayerNorm_0/bias')
    """
    if not (match := _BLOCK.fullmatch(name)):
        return None
    encoder, layer, leaf = match.groups()
    return BlockName(encoder, None if layer is None else int(layer), leaf)


def block_name(encoder: str, layer: int | None, leaf: str) -> str:
    """The inverse of `split_block_name`.

    >>> block_name("txt/Encoder_0", None, "LayerNorm_0/bias")
    'txt/Encoder_0/encoderblock/LayerNorm_0/bias'
    """
    return f"{encoder}/encoderblock{'' if layer is None else f'_{layer}'}/{leaf}"


def is_scanned(names: Iterable[str], encoder: str) -> bool:
    """Whether the blocks of `encoder` are in scan form among `names`."""
    return any(name.startswith(f"{encoder}/encoderblock/") for name in names)


def parameter_shapes(
    config: Siglip, *, scan_image: bool = False, scan_text: bool = False
) -> Shapes:
    """Name and shape of every parameter of `config`.

    One tower alone keeps its prefix, `img/` or `txt/`, and has no temperature and no bias.

    Args:
      config: the architecture.
      scan_image, scan_text: scan form instead of loop form, per tower.

    >>> from siglip_jax.checkpoints import find
    >>> shapes = parameter_shapes(find("siglip2_g-opt16_256").config, scan_image=True)
    >>> shapes["img/Transformer/encoderblock/LayerNorm_0/scale"], shapes["txt/head/kernel"]
    ((40, 1536), (1152, 1536))
    """
    shapes: Shapes = {} if config.tower else {"t": (1,), "b": (1,)}
    if config.vision is not None:
        shapes |= _nested(PREFIX["image"], _image_tower(config.vision, scan_image))
    if config.text is not None:
        shapes |= _nested(PREFIX["text"], _text_tower(config.text, scan_text))
    return shapes


def only_tower(names: Iterable[str]) -> Tower | None:
    """The tower that all of `names` are in; None if they are a whole model's.

    >>> only_tower(["img/embedding/bias"]), only_tower(["img/embedding/bias", "t"])
    ('image', None)
    """
    parts = {name.partition("/")[0] for name in names}
    return next((tower for tower, prefix in PREFIX.items() if parts == {prefix}), None)


def stored_parameters(
    config: Siglip, execution: Execution
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every parameter as `execution` keeps it; float32 unless it says.

    >>> from siglip_jax.checkpoints import find
    >>> stored = stored_parameters(find("siglip_b16_224").config, Execution(weights="int8"))
    >>> stored["txt/head/kernel"], stored["txt/head/kernel_scale"]
    (((768, 768), 'int8'), ((1, 768), 'float32'))
    """
    shapes = parameter_shapes(
        config, scan_image=execution.scan_image, scan_text=execution.scan_text
    )
    if execution.weights == "int8":
        shapes = int8_shapes(shapes)
    return {
        name: (shape, stored_dtype(name, execution.weights) or "float32")
        for name, shape in shapes.items()
    }


def parameter_count(config: Siglip) -> int:
    """Exact number of parameters.

    >>> from siglip_jax.checkpoints import find
    >>> parameter_count(find("siglip_b16_224").config)
    203155970
    """
    return sum(map(math.prod, parameter_shapes(config).values()))


def _nested(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}/{name}": shape for name, shape in shapes.items()}


def _image_tower(vision: Vision | NaFlexVision, scan: bool) -> Shapes:
    size, patch = vision.size, vision.patch
    if isinstance(vision, NaFlexVision):
        # The stem is a Dense over flattened patches, the table a bare 2-d grid.
        kernel: tuple[int, ...] = (patch * patch * 3, size.width)
        posemb: tuple[int, ...] = (vision.posemb_grid, vision.posemb_grid, size.width)
    else:
        kernel = (patch, patch, 3, size.width)
        posemb = (1, vision.grid**2, size.width)
    shapes = {
        "embedding/kernel": kernel,
        "embedding/bias": (size.width,),
        "pos_embedding": posemb,
        **_nested("Transformer", _encoder(size, scan)),
    }
    return shapes | _map_head(size) if vision.pool == "map" else shapes


def _map_head(size: Size) -> Shapes:
    return {
        "MAPHead_0/probe": (1, 1, size.width),
        **_nested("MAPHead_0/MultiHeadDotProductAttention_0", _attention(size)),
        **_nested("MAPHead_0/LayerNorm_0", _norm(size)),
        **_nested("MAPHead_0/MlpBlock_0", _mlp(size)),
    }


def _text_tower(text: Text, scan: bool) -> Shapes:
    width = text.size.width
    shapes = {
        "Embed_0/embedding": (text.vocab_size, width),
        "pos_embedding": (1, text.length, width),
        **_nested("Encoder_0", _encoder(text.size, scan)),
    }
    if text.head is not None:
        shapes |= {"head/kernel": (width, text.head), "head/bias": (text.head,)}
    return shapes


def _encoder(size: Size, scan: bool) -> Shapes:
    block = {
        **_nested("LayerNorm_0", _norm(size)),
        **_nested("MultiHeadDotProductAttention_0", _attention(size)),
        **_nested("LayerNorm_1", _norm(size)),
        **_nested("MlpBlock_0", _mlp(size)),
    }
    if scan:
        blocks = {f"encoderblock/{k}": (size.depth, *shape) for k, shape in block.items()}
    else:
        blocks = {
            f"encoderblock_{layer}/{leaf}": shape
            for layer in range(size.depth)
            for leaf, shape in block.items()
        }
    return {**blocks, **_nested("encoder_norm", _norm(size))}


def _norm(size: Size) -> Shapes:
    return {"scale": (size.width,), "bias": (size.width,)}


def _attention(size: Size) -> Shapes:
    heads = (size.num_heads, size.head_dim)
    shapes: Shapes = {}
    for name in ("query", "key", "value"):
        shapes |= {f"{name}/kernel": (size.width, *heads), f"{name}/bias": heads}
    return {**shapes, "out/kernel": (*heads, size.width), "out/bias": (size.width,)}


def _mlp(size: Size) -> Shapes:
    return {
        "Dense_0/kernel": (size.width, size.mlp_dim),
        "Dense_0/bias": (size.mlp_dim,),
        "Dense_1/kernel": (size.mlp_dim, size.width),
        "Dense_1/bias": (size.width,),
    }
