"""Where a tower's time goes on a CPU, by what XLA made of the model.

    python benchmarks/cpu_profile.py [--tower images|texts] [--batch N] [--precision P]

B/16-224 with seeded random weights, run under jax's profiler. For every kind of operation: its
share of the time of all, and milliseconds a batch. Matmuls, attention and reductions are
YNNPACK's (`ynn_fusion`) and are told apart by what they end in and its shape. What waits for
another thread counts, so that on a busy machine shares say more than times.

Results: benchmarks/RESULTS.md.
"""

import argparse
import collections
import os
import re
import tempfile
from pathlib import Path
from typing import Any

# Read when jax starts.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_enable_xprof_traceme=true"

import jax
import numpy as np
from cpu_options import PRECISIONS
from score_photographs import random_params

from siglip_jax.allocator import keep_freed_memory
from siglip_jax.checkpoints import find
from siglip_jax.models import SiglipModel
from siglip_jax.programs import Program, make_mesh
from siglip_jax.weights.int8 import stored
from siglip_jax.weights.tree import flatten, nested

RUNS, LINES = 5, 14
LINE = re.compile(r"\s*(?:ROOT )?%?(?P<name>\S+) = (?P<shape>\S+) (?P<kind>[\w-]+)\(")


def descriptions(text: str) -> dict[str, str]:
    """What each fusion for YNNPACK in a program's text ends in, and the shape of that."""
    ends: dict[str, str] = {}
    calls: dict[str, str] = {}
    computation = ""
    for line in text.splitlines():
        if line.endswith("{") and "->" in line:
            computation = line.split()[0].lstrip("%")
        elif found := LINE.match(line):
            if "ROOT " in line:
                ends[computation] = f"{found['kind']} {found['shape'].split('{')[0]}"
            if called := re.search(r"calls=%?([\w.-]+)", line):
                calls[found["name"]] = called[1]
    return {name: ends.get(called, "") for name, called in calls.items() if "ynn" in name}


def profiled(function: Any, *arguments: Any) -> collections.Counter[str]:
    """Nanoseconds of every operation in a run."""
    jax.block_until_ready(function(*arguments))
    taken: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(RUNS):
                jax.block_until_ready(function(*arguments))
        file = next(Path(folder).rglob("*.xplane.pb"))
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    name = dict(event.stats).get("hlo_op")
                    if name is not None:
                        taken[str(name)] += event.duration_ns / RUNS
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tower", default="images", choices=("images", "texts"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    given = parser.parse_args()
    keep_freed_memory()
    config, execution = find("siglip_b16_224").config, PRECISIONS[given.precision]
    kept = {}
    for name, leaf in flatten(random_params(config)).items():
        kept |= stored(name, leaf, execution.weights)
    program = Program(SiglipModel(config, execution), make_mesh())
    params = jax.device_put(nested(kept), program.params_sharding)
    rng = np.random.default_rng(0)
    x: Any = rng.integers(0, 256, (given.batch, 224, 224, 3), np.uint8)
    if given.tower == "texts":
        x = rng.integers(2, 32_000, (given.batch, 64), np.int32)
    x = jax.device_put(x, program.batch_sharding)
    lower = program.lower_images if given.tower == "images" else program.lower_texts
    compiled = lower(given.batch).compile()
    known = descriptions(compiled.as_text())
    kinds: collections.Counter[str] = collections.Counter()
    for name, taken in profiled(compiled, params, x).items():
        kinds[known.get(name) or re.sub(r"[.\d]+$", "", name)] += taken
    print(f"{given.tower}, batches of {given.batch}, {given.precision}")
    for kind, taken in kinds.most_common(LINES):
        print(f"    {kind:32} {taken / kinds.total():6.1%} {taken / 1e6:9.2f} ms")


if __name__ == "__main__":
    main()
