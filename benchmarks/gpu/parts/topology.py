"""The programs of the other parts, compiled for a TPU slice by libtpu, without a TPU."""

import time

from results import Results
from sizes import FAST, Case, config_for

from siglip_jax.models import SiglipModel
from siglip_jax.plan import find_slice
from siglip_jax.programs import Program, make_mesh

SLICE = "v5e:2x2"


def run(results: Results) -> None:
    try:
        where = find_slice(SLICE)
    except ValueError as error:
        results.skipped("topology", str(error))
        return
    for case in results.scale.cases:
        with results.attempt(case.name, needs=0 if results.scale.rehearsal else 15) as enough:
            if enough:
                compiled(results, case, make_mesh(where.devices))


def compiled(results: Results, case: Case, mesh: object) -> None:
    program = Program(SiglipModel(config_for(case), FAST), mesh)
    lower = program.lower_images if case.tower == "images" else program.lower_texts
    start = time.perf_counter()
    memory = lower(case.batches[0] * mesh.size).compile().memory_analysis()
    results.measured(
        f"{case.name} on {SLICE}",
        batch=case.batches[0] * mesh.size,
        compile_seconds=time.perf_counter() - start,
        temporary=memory.temp_size_in_bytes,
        arguments=memory.argument_size_in_bytes,
    )
