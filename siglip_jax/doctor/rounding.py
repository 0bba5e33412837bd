"""How far rounding moves embeddings: what a right pipeline in another precision is off by.

Another library in bfloat16 does not round where this one does, but as far: on live models
within a third for bfloat16 and float16, within a factor of two for int8, whose schemes
differ. Rounding moves every row, about equally; a wrong setting moves some and not others.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from siglip_jax.doctor.wrong_towers import Towers
from siglip_jax.models import SiglipModel
from siglip_jax.weights.int8 import stored
from siglip_jax.weights.tree import flatten, nested

# bfloat16 has 8 bits and float16 11.
_BFLOAT16_TO_FLOAT16 = 1 / 8
# How much further than ours another system's rounding may move rows.
_ROOM = {"float16": 2.0, "bfloat16": 2.0, "int8": 3.0}
# Rounding is even: no row moves by less than this share of the mean, nor by more times it.
_EVEN = 0.25, 3.0
# Embeddings that alone were rounded, not what they are computed of, move by less.
_LEAST = 0.1
_GREY_UNLIKENESS = 1.0


class Rounding(NamedTuple):
    """What one precision does to the rows of one tower.

    Attributes:
      name: "grey levels" (of resized images), "float16", "bfloat16" or "int8".
      distance: root mean square distance that it moves rows by here.
      room: rows may be that many times further away.
    """

    name: str
    distance: float
    room: float

    def explains(self, rows: np.ndarray) -> bool:
        """Whether rows so far from the right ones can be right but for this."""
        mean = float(np.sqrt(np.square(rows).mean()))
        if mean > self.room * self.distance:
            return False
        if self.name == "grey levels":  # One pixel of many, in some images.
            return rows.max() <= 3 * self.distance
        least, most = _EVEN
        even = rows.min() >= least * mean and rows.max() <= most * mean
        return mean >= _LEAST * self.distance and even

    def unlikeness(self, rows: np.ndarray) -> float:
        """By how many powers of e the rows are nearer or further than this moves them."""
        if self.name == "grey levels":  # Nothing is known of how many pixels they are.
            return _GREY_UNLIKENESS
        return abs(float(np.log(np.sqrt(np.square(rows).mean()) / self.distance)))


def roundings(
    model: SiglipModel,
    params: Any,
    embed: Callable[..., np.ndarray],
    *,
    grey: bool,
) -> list[Rounding]:
    """What each precision does, the finest first.

    Args:
      model, params: the model.
      embed: the right embeddings of the bundled inputs by `Towers`, given as first argument;
        with `grey=seed` of images whose grey levels are one off.
      grey: whether images are resized to whole grey levels.
    """
    right = embed(Towers(model, params))

    def distance(z: np.ndarray) -> float:
        return float(np.sqrt(np.square(z - right).sum(1).mean()))

    half = distance(embed(_in_bfloat16(model, params)))
    found = [Rounding("float16", half * _BFLOAT16_TO_FLOAT16, _ROOM["float16"])]
    if grey:  # About as coarse as float16, which is known by being even.
        off = embed(Towers(model, params), grey=0)
        found.append(Rounding("grey levels", distance(off), 1.0))
    found.append(Rounding("bfloat16", half, _ROOM["bfloat16"]))
    found.append(Rounding("int8", distance(embed(_in_int8(model, params))), _ROOM["int8"]))
    return found


def _in_bfloat16(model: SiglipModel, params: Any) -> Towers:
    """All of it: weights, activations, sums of them."""
    execution = dataclasses.replace(
        model.execution, dtype="bfloat16", text_dtype="bfloat16", weights=None
    )
    coarse = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    return Towers(model.clone(execution=execution), coarse)


def _in_int8(model: SiglipModel, params: Any) -> Towers:
    execution = dataclasses.replace(model.execution, weights="int8", remat=None)
    leaves: dict[str, np.ndarray] = {}
    for name, leaf in flatten(params).items():
        leaves |= stored(name, np.asarray(leaf, np.float32), "int8")
    return Towers(model.clone(execution=execution), nested(leaves))
