"""A tiny model with random weights, as files for tests to load."""

import dataclasses

import numpy as np

from siglip_jax.config import Siglip, Size, Text, Vision
from siglip_jax.weights.layout import parameter_shapes
from siglip_jax.weights.npz import write_npz
from siglip_jax.weights.tree import flatten

SIZE = Size(width=48, depth=3, mlp_dim=104, num_heads=4)
CONFIG = Siglip(
    vision=Vision(size=SIZE, patch=8, res=32),
    text=Text(size=dataclasses.replace(SIZE, depth=2), vocab_size=50, length=16, head=48),
)


def tensors(config=CONFIG, seed=0, **form):
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(config, **form)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def written(path, items):
    write_npz(path, items.items())
    return path


def bits(params):
    return {k: (v.dtype, v.shape, np.asarray(v).tobytes()) for k, v in flatten(params).items()}
