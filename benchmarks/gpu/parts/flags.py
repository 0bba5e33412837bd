"""XLA flags, each in a process of its own, turn by turn."""

import dataclasses
import os

from contestants import Contestant
from race import race
from results import Results
from sizes import FAST

FLAGS = {
    "as it is": "",
    "cuBLASLt": "--xla_gpu_enable_cublaslt=true",
    "no Triton matmuls": "--xla_gpu_enable_triton_gemm=false",
    "cuBLASLt, no Triton matmuls": (
        "--xla_gpu_enable_cublaslt=true --xla_gpu_enable_triton_gemm=false"
    ),
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
    cases = results.scale.cases[: 1 if results.scale.rehearsal else 2]
    race(results, [(dataclasses.replace(case, latency=False), contestants) for case in cases])
