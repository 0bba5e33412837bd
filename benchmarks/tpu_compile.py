"""Compiles the sharded scoring programs for a real TPU topology, without a TPU.

    pip install "jax[tpu]" && JAX_PLATFORMS=cpu python benchmarks/tpu_compile.py

Only XLA's compiler for TPU (libtpu) is needed. Prints, per chip, the memory of arguments
and temporaries for 256 images, and the compile time. Measured with jax 0.10.2 and libtpu
0.0.42.1, bfloat16 image tower, on 2 CPU cores (compile times are noisy):

    siglip_b16_224 on v5e:2x4, jax 0.10.2
    layers weights    tower   arguments  temporary  compile
    loop   replicated images     377 MB      26 MB   17.9 s
    loop   replicated texts      441 MB      56 MB   13.9 s
    loop   fsdp       images     193 MB      60 MB   22.5 s
    loop   fsdp       texts      198 MB      49 MB   17.0 s
    scan   replicated images     377 MB     176 MB    9.3 s
    scan   replicated texts      441 MB     171 MB    4.1 s
    scan   fsdp       images     118 MB      47 MB   11.3 s
    scan   fsdp       texts      122 MB      15 MB   10.1 s

Why block outputs are returned only when asked for: a scan that returns them keeps them for
all layers, and with split weights they took 978 MB more in this table (1025 instead of 47).
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
