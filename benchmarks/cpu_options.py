"""What XLA's options for CPUs do to the towers: compiled with each, run turn by turn.

    python benchmarks/cpu_options.py [--batches N ...] [--precisions P ...] [--rounds N]

B/16-224 with seeded random weights, as arguments of the program (as in a scorer). For each
tower, batch and precision and each option: how many times as fast as with none, the median of
ratios within one round, and its quartiles. An option that this jaxlib does not have is left
out with its message.

Results: benchmarks/RESULTS.md.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from score_photographs import random_params

from siglip_jax.allocator import keep_freed_memory
from siglip_jax.checkpoints import find
from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel
from siglip_jax.programs import Program, make_mesh
from siglip_jax.weights.int8 import stored
from siglip_jax.weights.tree import flatten, nested

OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "XLA's own matmuls, no YNNPACK": {"xla_cpu_experimental_ynn_fusion_type": ""},
    "YNNPACK for matmuls alone": {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    },
    "oneDNN custom calls": {
        "xla_cpu_use_onednn": True,
        "xla_cpu_experimental_onednn_custom_call": True,
    },
    "vectors of 512 bits": {"xla_cpu_prefer_vector_width": 512},
    "fast math": {"xla_cpu_enable_fast_math": True},
    "scheduler for concurrency": {"xla_cpu_enable_concurrency_optimized_scheduler": True},
}
PRECISIONS = {
    "float32": Execution(weights="float32"),
    "bfloat16": Execution(weights="bfloat16", dtype="bfloat16", text_dtype="bfloat16"),
    "int8": Execution(weights="int8", dtype="bfloat16", text_dtype="bfloat16"),
}


def compiled(tower: str, batch: int, program: Program) -> dict[str, Callable[..., Any]]:
    lower = program.lower_images if tower == "images" else program.lower_texts
    lowered, found = lower(batch), {}
    for name, options in OPTIONS.items():
        try:
            found[name] = lowered.compile(compiler_options=options)
        except Exception as error:
            print(f"    {name:32} {str(error).splitlines()[0][:80]}")
    return found


def measure(tower: str, batch: int, precision: str, weights: dict, rounds: int) -> None:
    execution, kept = PRECISIONS[precision], {}
    for name, leaf in weights.items():
        kept |= stored(name, leaf, execution.weights)
    program = Program(SiglipModel(find("siglip_b16_224").config, execution), make_mesh())
    params = jax.device_put(nested(kept), program.params_sharding)
    rng = np.random.default_rng(0)
    x: Any = rng.integers(0, 256, (batch, 224, 224, 3), np.uint8)
    if tower == "texts":
        x = rng.integers(2, 32_000, (batch, 64), np.int32)
    x = jax.device_put(x, program.batch_sharding)
    print(f"{tower}, batches of {batch}, {precision}")
    functions = compiled(tower, batch, program)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name in list(functions)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            jax.block_until_ready(functions[name](params, x))
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        # The first round prepares matmuls.
        ratios = np.divide(seconds["none"][1:], taken[1:])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(f"    {name:32} {middle:5.2f} ({low:.2f} to {high:.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--towers", nargs="+", default=["images", "texts"])
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    keep_freed_memory()
    weights = flatten(random_params(find("siglip_b16_224").config))
    for precision in given.precisions:
        for tower in given.towers:
            for batch in given.batches:
                measure(tower, batch, precision, weights, given.rounds)


if __name__ == "__main__":
    main()
