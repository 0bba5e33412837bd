"""XLA flags, each in a process of its own, turn by turn."""

import dataclasses
import os

from contestants import Contestant
from race import race
from results import Results
from sizes import FAST

FLAGS = {
    "as it is": "",
    "latency hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "cuDNN fusion": "--xla_gpu_cudnn_gemm_fusion_level=2",
    "no command buffers": "--xla_gpu_enable_command_buffer=",
    "Triton for every matmul": "--xla_gpu_triton_gemm_any=true",
    "no Triton matmuls": "--xla_gpu_enable_triton_gemm=false",
}


def run(results: Results) -> None:
    if results.platform == "tpu":
        results.skipped("flags", "these flags are for GPUs")
        return
    # XLA refuses a flag that it does not know, on a CPU as well: a rehearsal gives it all of them.
    flags = {"all of them": " ".join(FLAGS.values())} if results.scale.rehearsal else FLAGS
    given = os.environ.get("XLA_FLAGS", "")
    contestants = [
        Contestant(
            name, "siglip_jax", dataclasses.asdict(FAST), {"XLA_FLAGS": f"{given} {flag}".strip()}
        )
        for name, flag in flags.items()
    ]
    first = results.scale.cases[0]
    race(results, [(dataclasses.replace(first, batches=first.batches[:1]), contestants)])
