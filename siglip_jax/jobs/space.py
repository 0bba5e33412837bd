"""Which space embeddings lie in: only those of one space may be compared."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from siglip_jax.config import Siglip, to_dict
from siglip_jax.preprocessing.profiles import MAX_PIXELS
from siglip_jax.pretrained import Pretrained
from siglip_jax.weights.digest import weights_digest
from siglip_jax.weights.save import on_host
from siglip_jax.weights.tree import flatten


def space_of(model: Pretrained, recorded: dict[str, Any] | None = None) -> dict[str, Any]:
    """All that decides what an embedding of `model` is, as plain JSON types.

    `weights` is the digest of the parameters, so that the same model from another file or
    under another name is the same space.

    Args:
      model: what `load` returns.
      recorded: the space of a manifest that this one is to be compared with, whose digest may
        be of the kind that was recorded before (`weights_digest`).
    """
    like = recorded["weights"] if recorded else ""
    profile = model.profile.to_dict()
    # Which images are refused says nothing of the others.
    profile["image"]["max_pixels"] = MAX_PIXELS
    return {
        "weights": weights_digest(flatten(model.params), on_host, like),
        "architecture": to_dict(model.config),
        "profile": profile,
        "execution": dataclasses.asdict(model.model.execution),
        "width": model.config.embed_dim,
    }


def other_than(model: Pretrained, recorded: dict[str, Any]) -> list[str]:
    """What of `model` is not that of a recorded space; nothing where embeddings may be compared.

    Args:
      model: what `load` returns.
      recorded: the space of a job's manifest.
    """
    ours = space_of(model, recorded)
    return [name for name in ("weights", "architecture", "profile") if ours[name] != recorded[name]]


class ModelFacts(NamedTuple):
    """What a job writes down of its model, told by whichever process has loaded it.

    Attributes:
      name: that it was loaded by.
      config: its architecture.
      space: see `space_of`.
      t, b: temperature and bias, None of one tower alone.
    """

    name: str
    config: Siglip
    space: dict[str, Any]
    t: float | None
    b: float | None

    @classmethod
    def of(cls, model: Pretrained, recorded: dict[str, Any] | None) -> "ModelFacts":
        """The facts of a model that is here; `recorded` as for `space_of`."""
        t, b = (_number(model.params.get(name)) for name in ("t", "b"))
        return cls(model.name, model.config, space_of(model, recorded), t, b)


def _number(parameter: Any) -> float | None:
    """The temperature or the bias, which one tower alone has not."""
    return None if parameter is None else float(np.asarray(parameter)[0])
