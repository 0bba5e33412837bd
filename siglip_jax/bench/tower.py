"""One tower on one mesh: compiled, then timed."""

import dataclasses
import functools
import statistics
import time
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from siglip_jax.config import NaFlexVision
from siglip_jax.models import abstract_inputs
from siglip_jax.plan.flops import image_flops, text_flops
from siglip_jax.preprocessing import Patches
from siglip_jax.programs import Program
from siglip_jax.programs.compile_times import compiling_tower
from siglip_jax.programs.sharding import put
from siglip_jax.weights.tree import flatten, nested

TowerTask = Literal["images", "texts"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerSpeed:
    """What was measured of one tower at one batch size.

    Attributes:
      batch: items a step, over all devices.
      compile_seconds: tracing and compiling; next to nothing if a cache had it.
      temporary: bytes a device needs for a step beyond weights, inputs and outputs.
      items_per_second: of steps sent one after the other, as a job sends them.
      latencies: seconds of steps that were waited for, one each.
      flops: of an item, counted from the architecture.
    """

    tower: TowerTask
    batch: int
    compile_seconds: float
    temporary: int | None
    items_per_second: float
    latencies: tuple[float, ...]
    flops: int

    @property
    def p50(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.latencies)

    @property
    def p95(self) -> float:
        """Seconds that 95 of 100 steps do not exceed."""
        return float(np.quantile(self.latencies, 0.95, method="higher"))

    @property
    def flops_per_second(self) -> float:
        return self.items_per_second * self.flops


def random_weights(program: Program, seed: int = 0) -> Any:
    """Weights of a model's shapes, made where they will lie; speed does not depend on values.

    >>> from siglip_jax.config import Execution, Siglip, Size, Text, Vision
    >>> from siglip_jax.plan import scoring_program
    >>> size = Size(width=8, depth=1, mlp_dim=16, num_heads=2)
    >>> config = Siglip(vision=Vision(size=size, patch=8, res=16),
    ...                 text=Text(size=size, vocab_size=9, length=4, head=8))
    >>> program = scoring_program(config, jax.devices()[:1], Execution())
    >>> random_weights(program)["img"]["embedding"]["kernel"].shape
    (8, 8, 3, 8)
    """

    @functools.cache
    def maker(shape: tuple[int, ...], sharding: Any) -> Any:
        # Kernels and norms alike: small, so that activations stay finite in any dtype.
        return jax.jit(
            lambda key: 0.02 * jax.random.normal(key, shape, jnp.float32), out_shardings=sharding
        )

    leaves = flatten(program.abstract_params())
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    made = {
        name: maker(leaf.shape, leaf.sharding)(key)
        for (name, leaf), key in zip(leaves.items(), keys, strict=True)
    }
    return nested(made)


def random_batch(program: Program, tower: TowerTask, batch: int) -> Any:
    """One batch on the devices: uint8 pixels as a scorer sends them, NaFlex patches, or ids."""
    rng, config = np.random.default_rng(0), program.model.config
    images: Any
    images, ids = abstract_inputs(config, batch)
    if tower == "texts":
        host: Any = rng.integers(0, config.text_tower.vocab_size, ids.shape, np.int32)
    elif isinstance(config.vision, NaFlexVision):
        # A square of patches that fills the sequence.
        row, column = np.divmod(
            np.arange(images.type.shape[1], dtype=np.int32), np.int32(config.vision.posemb_grid)
        )
        shape = images.type.shape
        pixels = rng.uniform(-1, 1, images.patches.shape).astype(np.float32)
        host = Patches(
            pixels, np.ones(shape, np.int32), *(np.tile(i, (batch, 1)) for i in (row, column))
        )
    else:
        host = rng.integers(0, 256, images.shape, np.uint8)
    return jax.tree.map(lambda leaf: put(leaf, program.batch_sharding), host)


def measure_tower(
    program: Program, params: Any, tower: TowerTask, batch: int, *, seconds: float = 2.0
) -> TowerSpeed:
    """Compiles a tower for `batch` items and runs it for `seconds` each way.

    Inputs lie on the devices already, and what comes back stays there: decoding and
    transfers are not in it. At least three steps are timed each way.

    Args:
      params: weights of the model, such as `random_weights`.
      batch: items a step over all devices.
      seconds: at least, each way.

    >>> from siglip_jax.config import Execution, Siglip, Size, Text, Vision
    >>> from siglip_jax.plan import scoring_program
    >>> size = Size(width=8, depth=1, mlp_dim=16, num_heads=2)
    >>> config = Siglip(vision=Vision(size=size, patch=8, res=16),
    ...                 text=Text(size=size, vocab_size=9, length=4, head=8))
    >>> program = scoring_program(config, jax.devices()[:1], Execution())
    >>> speed = measure_tower(program, random_weights(program), "texts", 2, seconds=0.01)
    >>> speed.batch, len(speed.latencies) >= 3
    (2, True)
    """
    given = random_batch(program, tower, batch)
    function = program.images if tower == "images" else program.texts
    start = time.perf_counter()
    with compiling_tower(program, tower, batch):
        compiled = function.lower(params, given).compile()
    compile_seconds = time.perf_counter() - start
    step = functools.partial(compiled, params, given)
    jax.block_until_ready(step())
    latencies: list[float] = []
    while len(latencies) < 3 or sum(latencies) < seconds:
        start = time.perf_counter()
        jax.block_until_ready(step())
        latencies.append(time.perf_counter() - start)
    count = max(3, round(seconds / statistics.median(latencies)))
    start = time.perf_counter()
    waiting = [step()]
    for _ in range(count - 1):
        waiting.append(step())
        # Two in flight, as a scorer has them.
        jax.block_until_ready(waiting.pop(0))
    jax.block_until_ready(waiting)
    rate = batch * count / (time.perf_counter() - start)
    memory = compiled.memory_analysis()
    config = program.model.config
    return TowerSpeed(
        tower=tower,
        batch=batch,
        compile_seconds=compile_seconds,
        temporary=None if memory is None else int(memory.temp_size_in_bytes),
        items_per_second=rate,
        latencies=tuple(latencies),
        flops=image_flops(config) if tower == "images" else text_flops(config),
    )
