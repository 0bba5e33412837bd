"""Where the time of a step goes: the kernels of the first two towers, by their share."""

import collections
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData
from parts.device import describe
from results import Results
from sizes import FAST, Case, config_for

from siglip_jax.bench import random_weights
from siglip_jax.bench.tower import random_batch
from siglip_jax.models import SiglipModel
from siglip_jax.programs import Program, make_mesh

STEPS = 5
KERNELS = 15
# Lines of a trace on which kernels lie: of a GPU, of a TPU and, in a rehearsal, of a CPU.
LINES = {"gpu": "Stream", "tpu": "XLA Ops", "cpu": "tf_XLA"}


def run(results: Results) -> None:
    device = describe(results)
    for case in results.scale.cases[:2]:
        with results.attempt(case.name):
            traced(results, case, device)


def traced(results: Results, case: Case, device: Any) -> None:
    program = Program(SiglipModel(config_for(case), FAST), make_mesh([device]))
    params, batch = random_weights(program), case.batches[0]
    given = random_batch(program, case.tower, batch)
    function = program.images if case.tower == "images" else program.texts
    jax.block_until_ready(function(params, given))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            start = time.perf_counter()
            jax.block_until_ready([function(params, given) for _ in range(STEPS)])
            seconds = time.perf_counter() - start
        (file,) = Path(folder).rglob("*.xplane.pb")
        spent: collections.Counter[str] = collections.Counter()
        for name, duration in kernels(file, LINES[device.platform]):
            spent[name] += duration
    busy = sum(spent.values())
    if not busy:
        raise RuntimeError("the trace names no kernel of the device")
    results.measured(f"{case.name}, batch {batch}", step=seconds / STEPS, busy=busy / seconds)
    for name, duration in spent.most_common(KERNELS):
        results.measured(name[:120], case=case.name, share=duration / busy)


def kernels(file: Path, line_name: str) -> Iterator[tuple[str, float]]:
    """Name and seconds of everything that ran on the device."""
    for plane in ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            if line.name.startswith(line_name):
                yield from ((event.name, event.duration_ns / 1e9) for event in line.events)
