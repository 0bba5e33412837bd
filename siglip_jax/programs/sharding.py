"""Meshes, and rules that say how weights lie on them.

A rule is data: a regular expression for the parameter's name and what to do with
it, as in big_vision's `config.sharding_strategy` (`big_vision/sharding.py`).
The first rule whose expression matches the whole name wins.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA, MODEL = "data", "model"

# A strategy is "replicate", "fsdp" (see `fsdp_spec`), or one axis name or None per dimension.
Strategy = Literal["replicate", "fsdp"] | tuple[str | None, ...]
Rules = Sequence[tuple[str, Strategy]]

REPLICATED: Rules = ((".*", "replicate"),)
FSDP: Rules = ((".*", "fsdp"),)


def make_mesh(devices: Sequence[Any] | None = None, *, model: int = 1) -> Mesh:
    """A mesh with axes `data` (images, FSDP weights) and `model` (labels).

    Args:
      devices: default: all devices of all processes; those of a
        `jax.experimental.topologies` description work too.
      model: how many devices share the labels; the others share the images.

    Raises:
      ValueError: if `model` does not divide the number of devices.

    >>> dict(make_mesh(jax.devices()[:1]).shape)
    {'data': 1, 'model': 1}
    """
    devices = jax.devices() if devices is None else devices
    if model < 1 or len(devices) % model:
        raise ValueError(f"model={model} does not divide the {len(devices)} devices of the mesh")
    return Mesh(np.asarray(devices).reshape(-1, model), (DATA, MODEL))


def fsdp_spec(shape: tuple[int, ...], size: int, min_elements: int = 2**20) -> PartitionSpec:
    """Shards the largest dimension that `size` divides over `data`.

    Parameters of fewer than `min_elements` stay whole, as in big_vision (4 MB of
    float32): gathering them costs more than it saves.

    >>> tuple(fsdp_spec((3, 2048, 1024), 8))
    (None, 'data', None)
    """
    if np.prod(shape, dtype=np.int64) < min_elements:
        return PartitionSpec()
    for dim in sorted(range(len(shape)), key=lambda d: -shape[d]):
        if shape[dim] % size == 0:
            return PartitionSpec(*(DATA if d == dim else None for d in range(len(shape))))
    return PartitionSpec()


def sharding_of(mesh: Mesh, rules: Rules) -> Callable[[str, tuple[int, ...]], NamedSharding]:
    """The function from a parameter's name and shape to where it lies.

    The result is what `siglip_jax.load(..., sharding=)` takes.

    Raises:
      ValueError: (the function) if no rule matches, or a rule names an axis that
        the mesh does not have or that does not divide the parameter.

    >>> place = sharding_of(make_mesh(jax.devices()[:1]), (("txt/.*", "fsdp"), (".*", "replicate")))
    >>> place("img/pos_embedding", (1, 196, 768)).is_fully_replicated
    True
    """

    def place(name: str, shape: tuple[int, ...]) -> NamedSharding:
        for pattern, strategy in rules:
            if re.fullmatch(pattern, name):
                return NamedSharding(mesh, _spec(mesh, name, shape, strategy))
        raise ValueError(f"no sharding rule matches {name}; end the rules with ('.*', 'replicate')")

    return place


def _spec(mesh: Mesh, name: str, shape: tuple[int, ...], strategy: Strategy) -> PartitionSpec:
    if strategy == "replicate":
        return PartitionSpec()
    if strategy == "fsdp":
        return fsdp_spec(shape, mesh.shape[DATA])
    if isinstance(strategy, str) or len(strategy) != len(shape):
        raise ValueError(
            f"sharding rule for {name}: expected 'replicate', 'fsdp' or {len(shape)} axis names "
            f"for shape {shape}, got {strategy!r}"
        )
    for axis, side in zip(strategy, shape, strict=True):
        if axis is not None and axis not in mesh.shape:
            raise ValueError(f"sharding rule for {name}: the mesh has no axis {axis!r}")
        if axis is not None and side % mesh.shape[axis]:
            raise ValueError(
                f"sharding rule for {name}: {mesh.shape[axis]} devices of axis {axis!r} "
                f"do not divide {side}"
            )
    return PartitionSpec(*strategy)


def put(array: Any, sharding: NamedSharding) -> jax.Array:
    """An array that every process holds in full, on the devices of a mesh.

    Each process transfers only the parts that its own devices need. What is on devices already,
    of this process or of all, goes from device to device.
    """
    if not isinstance(array, jax.Array):
        array = np.asarray(array)
    elif not array.is_fully_addressable:
        return array if array.sharding == sharding else _resharded(sharding)(array)
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


@functools.cache
def _resharded(sharding: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda array: array, out_shardings=sharding)
