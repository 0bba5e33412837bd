"""The configuration that a checkpoint's shapes state.

Shapes state everything but the resolution: a 27 x 27 grid of patch 14 is what
378 px gives, and 384 px too. Heads are read from the (width, heads, head_dim)
kernels, never derived from the width.
"""

import math
from collections.abc import Mapping

from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.config import NaFlexVision, Pool, Siglip, Size, Text, Vision
from siglip_jax.errors import ModelError
from siglip_jax.weights.layout import (
    IMAGE_ENCODER,
    PREFIX,
    TEXT_ENCODER,
    is_scanned,
    only_tower,
    split_block_name,
)


def config_from_shapes(shapes: Mapping[str, tuple[int, ...]], *, res: int | None = None) -> Siglip:
    """The architecture of the checkpoint whose parameters have these shapes.

    Only the tensors that state something are looked at; `load_params` compares
    all of them. Shapes of one tower make a configuration of that tower alone. A NaFlex model
    gets big_vision's default canvas of 64 patches, an image tower alone without a pooling head
    `pool="none"`: whether its patches are averaged is not in the weights.

    Args:
      shapes: name to shape, names as `parameter_shapes` has them, either form.
      res: image side in pixels. Not needed when the sizes, patch, grid and text
        tower are those of a released checkpoint, whose resolution is known.

    Raises:
      ValueError: if a tensor that is needed is absent or has an odd shape, if
        `res` is needed and not given, or does not give the grid in the file.

    >>> from siglip_jax.checkpoints import find
    >>> from siglip_jax.weights.layout import parameter_shapes
    >>> config = find("siglip_so400m14_384").config
    >>> config_from_shapes(parameter_shapes(config, scan_text=True)) == config
    True
    """
    tower = only_tower(shapes)
    if tower != "text":
        _shape(shapes, "img/embedding/kernel", (2, 4))  # what is no model at all lacks this first
    text = None if tower == "image" else _text(shapes)
    vision = None if tower == "text" else _vision(shapes, text, res)
    return Siglip(vision=vision, text=text)


def _text(shapes: Mapping[str, tuple[int, ...]]) -> Text:
    vocab_size, _ = _shape(shapes, "txt/Embed_0/embedding", (2,))
    _, length, _ = _shape(shapes, "txt/pos_embedding", (3,))
    head = None
    if "txt/head/kernel" in shapes:
        _, head = _shape(shapes, "txt/head/kernel", (2,))
    size = _encoder_size(shapes, TEXT_ENCODER)
    return Text(size=size, vocab_size=vocab_size, length=length, head=head)


def _vision(
    shapes: Mapping[str, tuple[int, ...]], text: Text | None, res: int | None
) -> Vision | NaFlexVision:
    kernel = _shape(shapes, "img/embedding/kernel", (2, 4))
    posemb = _shape(shapes, "img/pos_embedding", (3,))
    size = _encoder_size(shapes, IMAGE_ENCODER)
    headless = not any(name.startswith(f"{PREFIX['image']}/MAPHead_0/") for name in shapes)
    # Beside a text tower a head that is missing is a fault of the file, to be named.
    pool: Pool = "none" if headless and text is None else "map"
    if len(kernel) == 2:
        patch = _side(kernel[0] // 3, "img/embedding/kernel", kernel)
        if res is not None:
            raise ValueError(f"a NaFlex model takes any resolution; leave out res={res}")
        return NaFlexVision(size=size, patch=patch, posemb_grid=posemb[0], pool=pool)
    patch, grid = kernel[0], _side(posemb[1], "img/pos_embedding", posemb)
    if res is None:
        res = _released_resolution(size, patch, grid, text)
    elif res // patch != grid:
        least, most = patch * grid, patch * (grid + 1) - 1
        raise ModelError(
            f"{res} px give {res // patch} patches of {patch} px per side, the weights have {grid}",
            needs="res",
            advice=f"pass res={least} (or up to {most})",
            res=least,
            res_to=most,
        )
    return Vision(size=size, patch=patch, res=res, pool=pool)


def _released_resolution(size: Size, patch: int, grid: int, text: Text | None) -> int:
    """That of the released model with these towers; of an image tower alone, of any like it."""
    for checkpoint in CHECKPOINTS:
        vision = checkpoint.config.vision
        if (
            isinstance(vision, Vision)
            and (vision.size, vision.patch, vision.grid) == (size, patch, grid)
            and text in (None, checkpoint.config.text)
        ):
            return vision.res
    least, most = patch * grid, patch * (grid + 1) - 1
    raise ModelError(
        "these weights are no released checkpoint and do not state their resolution "
        f"({grid} patches of {patch} px per side; pixels left over are cropped)",
        needs="res",
        advice=f"pass res={least} (or up to {most})",
        res=least,
        res_to=most,
    )


def _encoder_size(shapes: Mapping[str, tuple[int, ...]], encoder: str) -> Size:
    if is_scanned(shapes, encoder):
        prefix, lead = f"{encoder}/encoderblock", 1
    else:
        prefix, lead = f"{encoder}/encoderblock_0", 0
    kernel = f"{prefix}/MultiHeadDotProductAttention_0/query/kernel"
    *stack, width, num_heads, head_dim = _shape(shapes, kernel, (lead + 3,))
    *_, mlp_dim = _shape(shapes, f"{prefix}/MlpBlock_0/Dense_0/kernel", (lead + 2,))
    if num_heads * head_dim != width:
        raise ValueError(
            f"{kernel} is {shapes[kernel]}: {num_heads} heads of {head_dim} are not {width} wide"
        )
    blocks = [block for block in map(split_block_name, shapes) if block]
    layers = {block.layer for block in blocks if block.encoder == encoder} - {None}
    depth = stack[0] if stack else len(layers)
    return Size(width=width, depth=depth, mlp_dim=mlp_dim, num_heads=num_heads)


def _shape(
    shapes: Mapping[str, tuple[int, ...]], name: str, ndims: tuple[int, ...]
) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None:
        raise ValueError(f"not the weights of a SigLIP model: there is no {name}")
    if len(shape) not in ndims or 0 in shape:
        expected = " or ".join(map(str, ndims))
        raise ValueError(f"{name} is {shape}; expected {expected} axes, none of them empty")
    return tuple(shape)


def _side(area: int, name: str, shape: tuple[int, ...]) -> int:
    side = math.isqrt(area)
    if side < 1 or side * side != area:
        raise ValueError(f"{name} is {shape}: {area} is not the area of a square grid")
    return side
