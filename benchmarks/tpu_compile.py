"""Compiles the sharded scoring programs for a real TPU topology, without a TPU.

    pip install "jax[tpu]" && JAX_PLATFORMS=cpu python benchmarks/tpu_compile.py

Only XLA's compiler for TPU (libtpu) is needed. Prints, per chip, the memory of arguments
and temporaries for 256 images, and the compile time.

Results: benchmarks/RESULTS.md.
"""

import argparse
import time

import jax
from jax.experimental import topologies

from siglip_jax.checkpoints import find
from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel
from siglip_jax.programs import FSDP, REPLICATED, Program, make_mesh


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--model", default="siglip_b16_224")
    parser.add_argument("--batch", type=int, default=256)
    args = parser.parse_args()
    topology = topologies.get_topology_desc(topology_name=args.topology, platform="tpu")
    mesh = make_mesh(topology.devices, model=2)
    config = find(args.model).config
    print(f"{args.model} on {args.topology}, jax {jax.__version__}")
    print("layers weights    tower   arguments  temporary  compile")
    for scan in (False, True):
        execution = Execution(dtype="bfloat16", scan_image=scan, scan_text=scan)
        for name, rules in (("replicated", REPLICATED), ("fsdp", FSDP)):
            program = Program(SiglipModel(config, execution), mesh, rules)
            lowered = {
                "images": program.lower_images(args.batch),
                "texts": program.lower_texts(args.batch),
            }
            for tower, low in lowered.items():
                start = time.perf_counter()
                memory = low.compile().memory_analysis()
                seconds = time.perf_counter() - start
                arguments = memory.argument_size_in_bytes / 1e6
                temporary = memory.temp_size_in_bytes / 1e6
                print(
                    f"{'scan' if scan else 'loop':6} {name:10} {tower:6} "
                    f"{arguments:7.0f} MB {temporary:7.0f} MB {seconds:6.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
