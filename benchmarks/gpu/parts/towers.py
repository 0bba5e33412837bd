"""Each tower alone on a quiet device: speed, share of the matmul peak, memory, compile time."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
from parts.device import describe
from results import Results
from sizes import FAST, Case, config_for

from siglip_jax.bench import matrix_peak, measure_tower, random_weights
from siglip_jax.models import SiglipModel
from siglip_jax.programs import Program, make_mesh
from siglip_jax.programs.memory import device_memory

Turn = tuple[Case, int]
# How many have the device, and all cores, to themselves while they compile.
ALONE = 2


def run(results: Results) -> None:
    mesh = make_mesh([describe(results)])
    peak(results, mesh)
    turns = in_order(results.scale.cases)
    for case, batch in turns[:ALONE]:
        turn(results, mesh, case, batch)
    # The others compile at the same time, into jax's cache, and are timed one after the other.
    with ThreadPoolExecutor(results.scale.workers) as pool:
        list(pool.map(lambda each: compiled(results, mesh, *each), turns[ALONE:]))
    for case, batch in turns[ALONE:]:
        turn(results, mesh, case, batch)
    peak(results, mesh)


def in_order(cases: Sequence[Case]) -> list[Turn]:
    """The most telling first: when time runs out, the last ones are missing."""
    return [
        *((case, case.batches[0]) for case in cases),
        *((case, 1) for case in cases if case.latency),
        *((case, batch) for case in cases for batch in case.batches[1:]),
    ]


def turn(results: Results, mesh: jax.sharding.Mesh, case: Case, batch: int) -> None:
    needs = 0 if results.scale.rehearsal else 8
    with results.attempt(f"{case.name}, batch {batch}", needs=needs) as enough:
        if enough:
            measure(results, mesh, case, batch)


def compiled(results: Results, mesh: jax.sharding.Mesh, case: Case, batch: int) -> None:
    what = f"{case.name}, batch {batch}, compiled beside others"
    with results.attempt(what, needs=0 if results.scale.rehearsal else 45) as enough:
        if enough:
            program = Program(SiglipModel(config_for(case), FAST), mesh)
            lower = program.lower_images if case.tower == "images" else program.lower_texts
            start = time.perf_counter()
            lower(batch).compile()
            results.measured(what, compile_seconds=time.perf_counter() - start)


def peak(results: Results, mesh: jax.sharding.Mesh) -> None:
    """What a chip reaches changes while it is measured, so at the beginning and at the end."""
    sides = (16, 32) if results.scale.rehearsal else ()
    found = matrix_peak(mesh, "bfloat16", "default", sides=sides)
    results.measured("matmul peak", flops_per_second=found)


def measure(results: Results, mesh: jax.sharding.Mesh, case: Case, batch: int) -> None:
    program = Program(SiglipModel(config_for(case), FAST), mesh)
    params = random_weights(program)
    speed = measure_tower(program, params, case.tower, batch, seconds=results.scale.seconds)
    results.measured(
        f"{case.name}, batch {batch}",
        case=case.name,
        batch=batch,
        per_second=speed.items_per_second,
        flops_per_second=speed.flops_per_second,
        latency=speed.p50,
        latency_95=speed.p95,
        compile_seconds=speed.compile_seconds,
        temporary=speed.temporary,
        peak_so_far=device_memory(jax.devices()).peak,
    )
