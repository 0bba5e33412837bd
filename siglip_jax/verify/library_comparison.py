"""What was written, run in the library it was written for, beside siglip_jax.

Both systems get the same arrays: the bundled images and texts, prepared once as that
library prepares them. So only the weights and the arithmetic are compared.
"""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.converters import OpenCheckpoint, open_checkpoint
from siglip_jax.verify.live_library import LIBRARIES, library_outputs, require_library
from siglip_jax.verify.own_outputs import Outputs, TowerInputs, bundled_inputs, own_outputs

# Of unit vectors, and of logits relative to the largest: what float32 rounding explains.
TOLERANCE = 1e-5


def compare(folder: Path, to: str, *, per_layer: bool = False) -> dict[str, Any]:
    """The largest differences between the library's outputs and ours, as plain JSON types.

    Args:
      folder: what `convert` wrote.
      to: its format.
      per_layer: also those of every block's output.

    Raises:
      ValueError: if the library is not installed, or cannot load the folder.
    """
    require_library(to)
    with open_checkpoint(folder) as source:
        inputs = bundled_inputs(source, to)
        ours = own_outputs(source, inputs, per_layer=per_layer)
    theirs = library_outputs(folder, to, source.tower, inputs, per_layer=per_layer)
    names = LIBRARIES[to].values()
    largest = {
        name: _largest(getattr(theirs, name), getattr(ours, name))
        for name in ("image", "text", "logits")
        if getattr(ours, name) is not None
    }
    made = {
        "libraries": {name: importlib.metadata.version(name) for name in names},
        "inputs": inputs.described,
        "largest_difference": largest,
        "largest_logit": _scale(ours.logits) if ours.logits is not None else None,
        "agrees": all(v <= TOLERANCE * _scale(getattr(ours, k)) for k, v in largest.items()),
    }
    if per_layer:
        made["layers"] = list(_layers(theirs, ours, inputs))
    return made


def _layers(theirs: Outputs, ours: Outputs, inputs: TowerInputs) -> Iterator[dict[str, Any]]:
    used = getattr(inputs.images, "type", None)
    for (tower, layer), block in sorted(ours.blocks.items()):
        other = theirs.blocks[tower, layer]
        if tower == "image" and used is not None:
            # Systems differ in what they compute at padding, which nothing reads.
            block, other = block[used == 1], other[used == 1]
        yield {
            "tower": tower,
            "layer": layer,
            "largest_difference": _largest(other, block),
            "largest_value": float(np.abs(block).max()),
        }


def _scale(values: np.ndarray) -> float:
    """What a difference is relative to: unit-norm rows to 1, logits and patches to the largest."""
    return max(1.0, float(np.abs(values).max()))


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())


def exact_gelu_effect(source: OpenCheckpoint, to: str, towers: tuple[str, ...]) -> dict[str, Any]:
    """How far the exact GELU in `towers` moves our own outputs for the bundled inputs."""
    inputs = bundled_inputs(source, to)
    right = own_outputs(source, inputs)
    wrong = own_outputs(source, inputs, exact=towers)
    return {
        name: _largest(getattr(wrong, name), getattr(right, name))
        for name in ("image", "text", "logits")
        if getattr(right, name) is not None
    }
