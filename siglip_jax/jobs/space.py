"""Which space embeddings lie in: only those of one space may be compared."""

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from siglip_jax.config import to_dict
from siglip_jax.pretrained import Pretrained
from siglip_jax.weights.routes import reform
from siglip_jax.weights.save import on_host
from siglip_jax.weights.tree import flatten


def space_of(model: Pretrained) -> dict[str, Any]:
    """All that decides what an embedding of `model` is, as plain JSON types.

    `weights` is `digest` of the parameters, so that the same model from another file or
    under another name is the same space.
    """
    return {
        "weights": digest(model.params),
        "architecture": to_dict(model.config),
        "profile": model.profile.to_dict(),
        "execution": dataclasses.asdict(model.model.execution),
        "width": model.config.embed_dim,
    }


def digest(params: Any) -> str:
    """SHA-256 over all parameters under big_vision's names, layers one by one.

    The same for every file format, and whether layers are scanned or not.

    >>> a = {"img": {"w": np.zeros(2, np.float32)}}
    >>> digest(a)[:7], digest(a) == digest({"img": {"w": np.zeros(3, np.float32)}})
    ('sha256:', False)
    """
    leaves = flatten(params)
    routes = reform(
        {k: leaf.shape for k, leaf in leaves.items()}, scan_image=False, scan_text=False
    )
    parts = {name: (route, i) for route in routes for i, name in enumerate(route.targets)}
    total, held = hashlib.sha256(), ("", np.zeros(0))
    for name in sorted(parts):
        route, place = parts[name]
        source = route.sources[0]
        if held[0] != source:
            held = source, on_host(leaves[source])
        part = np.ascontiguousarray(held[1][place] if route.how == "unstack" else held[1])
        head = json.dumps([name, str(part.dtype), list(part.shape)])
        total.update(head.encode())
        total.update(part.reshape(-1).view(np.uint8))
    return f"sha256:{total.hexdigest()}"
