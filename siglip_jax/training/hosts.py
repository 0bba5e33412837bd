"""Several processes as one run: who writes, who waits, and arrays that all of them can read."""

from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def first() -> bool:
    """Whether this process is the one that writes what all would write alike."""
    return jax.process_index() == 0


def meet(what: str) -> None:
    """Returns when all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def gathered(tree: Any, mesh: Mesh) -> Any:
    """The arrays, such that each process can read the whole of them."""
    if jax.process_count() == 1:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda tree: tree, out_shardings=everywhere)(tree)


def agreed(value: int) -> int:
    """What the first process says, in all of them."""
    return int(multihost_utils.broadcast_one_to_all(value)) if jax.process_count() > 1 else value
