"""The same random weights and inputs in every process and in every system.

A tensor is made from a seed of its big_vision name, so that no file has to be written,
converted and read to give four systems the same gigabytes.
"""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from siglip_jax.config import NaFlexVision, Siglip
from siglip_jax.weights.layout import parameter_shapes as parameter_shapes
from siglip_jax.weights.layout import split_block_name


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One parameter in float32: kernels by their fan-in, norms near one, biases small.

    `name` may be in scan form: its layers are those of the loop form.
    """
    block = split_block_name(name)
    if block is not None and block.layer is None:
        encoder, leaf = block.encoder, block.leaf
        names = [f"{encoder}/encoderblock_{i}/{leaf}" for i in range(shape[0])]
        return np.stack([tensor(each, shape[1:]) for each in names])
    if name == "t":
        return np.float32([np.log(10)])
    if name == "b":
        return np.float32([-10])
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    leaf = name.rsplit("/", 1)[1]
    if leaf == "scale":
        return 1 + np.float32(0.1) * values
    if leaf in ("bias", "pos_embedding"):
        return np.float32(0.02) * values
    if leaf == "kernel":
        joined = name.endswith(("out/kernel", "img/embedding/kernel"))
        fan = np.prod(shape[:-1]) if joined else shape[0]
        return values / np.sqrt(np.float32(fan))
    return values / np.sqrt(np.float32(shape[-1]))  # the embedding and the probe


def tree(config: Siglip, make: Callable[[str, tuple[int, ...]], Any] = tensor) -> dict[str, Any]:
    """All parameters of a model in loop form, nested as big_vision nests them."""
    from flax.traverse_util import unflatten_dict

    flat = {name: make(name, shape) for name, shape in parameter_shapes(config).items()}
    return unflatten_dict(flat, sep="/")


def inputs(config: Siglip, tower: str, batch: int) -> Any:
    """One batch on the host: uint8 pixels, NaFlex patches with padding, or token ids.

    NaFlex comes as a dict of patches (b, n, p*p*3) float32 and type, yidx, xidx (b, n) int32.
    """
    rng = np.random.default_rng(batch)
    if tower == "texts":
        shape = (batch, config.text.length)
        return rng.integers(0, config.text.vocab_size, shape, np.int32)
    vision = config.vision
    if not isinstance(vision, NaFlexVision):
        return rng.integers(0, 256, (batch, vision.res, vision.res, 3), np.uint8)
    side = vision.posemb_grid
    # Every second image is a square, the others are wider and leave a few places empty.
    grids = [(side, side), (side * 3 // 4, side * 5 // 4)]
    n = side**2
    patches = np.zeros((batch, n, vision.patch**2 * 3), np.float32)
    kind, y, x = np.zeros((3, batch, n), np.int32)
    for i in range(batch):
        h, w = grids[i % 2]
        patches[i, : h * w] = rng.uniform(-1, 1, (h * w, patches.shape[2]))
        kind[i, : h * w] = 1
        y[i, : h * w], x[i, : h * w] = (axis.ravel() for axis in np.mgrid[:h, :w])
    return {"patches": patches, "type": kind, "yidx": y, "xidx": x}
