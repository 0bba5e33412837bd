"""The matrix throughput that these devices reach, which a model's is a share of."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from siglip_jax.programs.sharding import DATA, MODEL

# Large enough to be limited by arithmetic; a CPU is slow and has no launch to hide.
SIDES = {"cpu": (1024, 2048)}
_SIDES = (4096, 8192)
_CHAINED = {"cpu": 1}
_MANY = 16


def matrix_peak(
    mesh: Mesh,
    dtype: str,
    precision: str | None,
    *,
    sides: tuple[int, ...] = (),
    repeats: int = 5,
) -> float:
    """FLOP/s of all devices together, the best of several square matmuls.

    Args:
      mesh: every device of it multiplies its own matrices, all at the same time.
      dtype, precision: as `Execution` has them.
      sides: of the matrices; default: chosen for the device.
      repeats: matmuls of each size that are timed.

    >>> from siglip_jax import make_mesh
    >>> mesh = make_mesh(jax.devices()[:1])
    >>> matrix_peak(mesh, "float32", "highest", sides=(64,), repeats=1) > 0
    True
    """
    platform = mesh.devices.flat[0].platform
    sides = sides or SIDES.get(platform, _SIDES)
    return max(_rate(mesh, dtype, precision, side, repeats, platform) for side in sides)


def _rate(
    mesh: Mesh, dtype: str, precision: str | None, side: int, repeats: int, platform: str
) -> float:
    chained = _CHAINED.get(platform, _MANY)
    split = NamedSharding(mesh, PartitionSpec((DATA, MODEL)))

    @functools.partial(jax.jit, out_shardings=split)
    def matrices(key: jax.Array) -> Any:
        # Random: what a chip's power allows depends on the bits that change.
        return jax.random.normal(key, (mesh.size, side, side), jnp.dtype(dtype))

    @functools.partial(jax.jit, in_shardings=(split, split), out_shardings=split)
    def chain(x: jax.Array, w: jax.Array) -> jax.Array:
        # One after the other in one program, so that starting it costs next to nothing.
        return jax.lax.fori_loop(0, chained, lambda _, y: jnp.matmul(y, w), x)

    x, w = (matrices(jax.random.key(seed)) for seed in range(2))
    w = w / jnp.sqrt(side).astype(w.dtype)
    with jax.default_matmul_precision(precision):
        jax.block_until_ready(chain(x, w))
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            jax.block_until_ready(chain(x, w))
            best = min(best, time.perf_counter() - start)
    return 2 * side**3 * chained * mesh.size / best
