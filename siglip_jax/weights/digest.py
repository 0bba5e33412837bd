"""Which weights these are: one digest, the same in every file format and form of blocks.

A digest of each tensor's own digest, so that a conversion, which sees tensors in the order of
its files and one at a time, and a job, which has them on devices, arrive at the same one.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np

from siglip_jax.weights.routes import reform

_PREFIX, _OLD_PREFIX = "tensors-sha256:", "sha256:"


def tensor_digest(array: np.ndarray) -> str:
    """SHA-256 of a tensor: its dtype, its shape and its numbers in C order.

    >>> tensor_digest(np.zeros(2)) == tensor_digest(np.zeros((1, 2)))
    False
    """
    digest = hashlib.sha256(f"{array.dtype.name} {list(array.shape)}\n".encode())
    digest.update(_bytes(array))
    return digest.hexdigest()


def combined_digest(tensors: Mapping[str, str]) -> str:
    """SHA-256 of the digests of all tensors and their names, in the order of the names."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(tensors.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def weights_digest(
    leaves: Mapping[str, Any], host: Callable[[Any], np.ndarray] = np.asarray, like: str = ""
) -> str:
    """The digest of all parameters under big_vision's names, layers one by one.

    What follows the colon is the `weights_sha256` of a `conversion.json`.

    Args:
      leaves: "/"-joined names to arrays.
      host: brings an array to the host.
      like: a digest recorded earlier. Manifests of jobs had one of their own at first, which
        begins with "sha256:"; of such a one the same is made, so that those jobs can go on.

    >>> a = {"img/w": np.zeros(2, np.float32)}
    >>> weights_digest(a)[:20], weights_digest(a) == weights_digest({"img/w": np.zeros(3)})
    ('tensors-sha256:8bce6', False)
    """
    if like.startswith(_OLD_PREFIX):
        return _old_digest(leaves, host)
    tensors = {name: tensor_digest(part) for name, part in _layers(leaves, host)}
    return _PREFIX + combined_digest(tensors)


def _layers(
    leaves: Mapping[str, Any], host: Callable[[Any], np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Every parameter, those of stacked blocks apart; each array is brought over once."""
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    for route in reform(shapes, scan_image=False, scan_text=False):
        array = host(leaves[route.sources[0]])
        yield from zip(route.targets, array if route.how == "unstack" else (array,), strict=True)


def _old_digest(leaves: Mapping[str, Any], host: Callable[[Any], np.ndarray]) -> str:
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    routes = reform(shapes, scan_image=False, scan_text=False)
    parts = {name: (route, i) for route in routes for i, name in enumerate(route.targets)}
    total, held = hashlib.sha256(), ("", np.zeros(0))
    for name in sorted(parts):
        route, index = parts[name]
        if held[0] != route.sources[0]:
            held = route.sources[0], host(leaves[route.sources[0]])
        part = held[1][index] if route.how == "unstack" else held[1]
        total.update(json.dumps([name, str(part.dtype), list(part.shape)]).encode())
        total.update(_bytes(part))
    return f"{_OLD_PREFIX}{total.hexdigest()}"


def _bytes(array: np.ndarray) -> memoryview:
    return memoryview(cast(Any, np.ascontiguousarray(array).reshape(-1).view(np.uint8)))
