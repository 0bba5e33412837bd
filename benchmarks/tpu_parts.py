"""What compiling a scanned image tower for TPUs is made of: each part as a program of its own.

    pip install "jax[tpu]" && JAX_PLATFORMS=cpu python benchmarks/tpu_parts.py

Prints the CPU seconds, of all threads, that XLA's compiler takes for each part of a tower in
bfloat16, whose weights and images lie as in `tpu_against_big_vision.py`; and for towers of one
layer and of all, where the difference is what more layers cost.

Results: benchmarks/RESULTS.md.
"""

import argparse
import dataclasses
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from tpu_against_big_vision import MODELS, SCANNED

from siglip_jax.checkpoints import find
from siglip_jax.config import Execution, Vision
from siglip_jax.models.transformer import Block, MapHead, Mlp, MultiHeadAttention
from siglip_jax.plan import find_slice, scoring_program
from siglip_jax.programs import Program

RUN = Execution(dtype="bfloat16", **SCANNED)


class Attention(nn.Module):
    """A block's attention of tokens over themselves."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return MultiHeadAttention(self.heads, RUN.dtype, name="attention")(x, x)[0]


def parts(vision: Vision) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Modules, and the shape of what one image gives each."""
    size, tokens = vision.size, (vision.grid**2, vision.size.width)
    patch = (vision.patch, vision.patch)
    stem = nn.Conv(size.width, patch, strides=patch, padding="VALID", dtype=RUN.dtype)
    return {
        "nothing": (nn.Dropout(0.0, deterministic=True), tokens),
        "stem": (stem, (vision.res, vision.res, 3)),
        "attention": (Attention(size.num_heads), tokens),
        "MLP": (Mlp(size.mlp_dim, RUN.dtype), tokens),
        "a block": (Block(size, RUN.dtype), tokens),
        "MAP head": (MapHead(size), tokens),
    }


def lowered(module: nn.Module, shape: tuple[int, ...], batch: int, program: Program) -> Any:
    x = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    whole = program.everywhere

    def run(params: Any, x: jax.Array) -> Any:
        with program.tracing():
            return module.apply(params, x)

    return jax.jit(run, in_shardings=(whole, program.batch_sharding)).lower(params, x)


def cpu_seconds(program: jax.stages.Lowered) -> float:
    start = time.process_time()
    program.compile()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", nargs="+", default=["v5e:2x2", "v6e:2x2"])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    args = parser.parse_args()
    print(f"jax {jax.__version__}; CPU seconds to compile")
    for name in args.models:
        config = find(name).config
        for where in map(find_slice, args.on):
            print(f"{name} on {where.name}, {MODELS[name][1]} images a chip")
            batch = MODELS[name][1] * len(where.devices)
            program = scoring_program(config, where.devices, RUN)
            for part, (module, shape) in parts(config.vision).items():
                taken = cpu_seconds(lowered(module, shape, batch, program))
                print(f"    {part:16}{taken:6.1f}", flush=True)
            for depth in (1, config.vision.size.depth):
                size = dataclasses.replace(config.vision.size, depth=depth)
                vision = dataclasses.replace(config.vision, size=size)
                shallow = dataclasses.replace(config, vision=vision)
                tower = scoring_program(shallow, where.devices, RUN)
                taken = cpu_seconds(tower.lower_images(batch))
                print(f"    tower of {depth:<7}{taken:6.1f}", flush=True)


if __name__ == "__main__":
    main()
