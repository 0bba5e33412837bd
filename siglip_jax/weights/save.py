"""Parameters from devices into a big_vision checkpoint, one tensor at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from siglip_jax.weights.npz import write_npz
from siglip_jax.weights.routes import reform
from siglip_jax.weights.tensorstore_folder import write_folder
from siglip_jax.weights.tree import flatten


def save_params(
    path: str | Path,
    params: Mapping[str, Any],
    *,
    scan_image: bool | None = None,
    scan_text: bool | None = None,
    prefix: str = "params/",
    compressed: bool = False,
    step: int = 0,
) -> None:
    """Writes parameters in a form that big_vision's `load_params` reads.

    Args:
      path: a name that ends in `.npz` makes a file; any other name a
        tensorstore folder `<path>-<step>` and the pointer `<path>-LAST`.
      params: nested dictionaries of arrays, the whole tree.
      scan_image, scan_text: the form to write each tower in; None writes it as
        it is. big_vision's own text tower is read in loop form only.
      prefix, compressed: of a `.npz`; see `write_npz`.
      step: of a folder; see `write_folder`.

    Raises:
      ValueError: if there is nothing to write or it cannot be written there.
    """
    leaves = flatten(params)
    if Path(path).suffix == ".npz":
        items = _items(leaves, scan_image, scan_text)
        write_npz(path, items, prefix=prefix, compressed=compressed)
    else:
        write_folder(path, _items(leaves, scan_image, scan_text), step=step)


def _items(
    leaves: Mapping[str, Any], scan_image: bool | None, scan_text: bool | None
) -> Iterator[tuple[str, np.ndarray]]:
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    for route in reform(shapes, scan_image=scan_image, scan_text=scan_text):
        if route.how == "stack":
            layers = [leaves[name] for name in route.sources]
            common = np.result_type(*(layer.dtype for layer in layers))
            host = np.empty((len(layers), *layers[0].shape), common)
            for i, layer in enumerate(layers):
                host[i] = on_host(layer)
        else:
            host = on_host(leaves[route.sources[0]])
        yield from zip(route.targets, host if route.how == "unstack" else (host,), strict=True)


def on_host(leaf: Any) -> np.ndarray:
    """The whole of a parameter, as numpy sees it; jax keeps no second copy of it."""
    if not isinstance(leaf, jax.Array):
        return np.asarray(leaf)
    # An array remembers its host copy for as long as it lives. A second handle on the same
    # device buffers remembers it only for as long as we need it.
    shards = [shard.data for shard in leaf.addressable_shards]
    handle = jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shards)
    return np.asarray(handle)
