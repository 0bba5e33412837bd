"""Bulk jobs of a million to five billion images: planned, and simulated with trouble.

    pip install "jax[tpu]"
    JAX_PLATFORMS=cpu python benchmarks/job_table.py

Writes benchmarks/job_table.md. Of every model and slice the plan of `siglip-jax plan --items`, and
`siglip_jax.plan.simulation` of the same job with what a plan leaves out: images whose sizes have a
heavy tail, hosts that are slow, processes that die and are replaced, a store that refuses
requests. Both as a job runs today, with one process on each host, and as if its cores all decoded.
Programs are compiled without a TPU, once.
"""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from siglip_jax.checkpoints import find
from siglip_jax.config import Execution
from siglip_jax.plan import (
    CHIPS,
    HOSTS,
    BulkPlan,
    Cluster,
    bulk_plan,
    draw_costs,
    find_slice,
    make_plan,
    scoring_program,
    scoring_workload,
    simulate,
)
from siglip_jax.plan.flops import image_flops
from siglip_jax.plan.measured import DECODING

MODELS = ("siglip2_b16_256", "siglip2_so400m14_384")
SLICES = {"one H100": "H100", "v5e-16": "v5e:4x4", "v6e-256": "v6e:16x16"}
ITEMS = {"1 M": 10**6, "100 M": 10**8, "5 G": 5 * 10**9}
SHARD, EACH = 2048, 128
EXECUTION = Execution(dtype="bfloat16", scan_image=True)
TROUBLE = Cluster(
    start=60.0,
    start_cpu=10.0,
    slow_share=0.05,
    slow=0.5,
    deaths=1 / (7 * 24),
    replaced=600.0,
    throttled=0.01,
    requests=4,
)


class Side(NamedTuple):
    chip: str
    chips: int
    peak: float
    memory: float


def rates(model: str, slice_: str) -> Side:
    """What the chips do at their peak."""
    config = find(model).config
    if slice_ in HOSTS:
        chip = next(chip for chip in CHIPS if chip.name == slice_)
        return Side(slice_, 1, chip.peak("default") / image_flops(config), math.inf)
    where = find_slice(slice_)
    workload = scoring_workload("images", scoring_program(config, where.devices, EXECUTION))
    plan = make_plan(workload, EACH * len(where.devices), where)
    jax.clear_caches()
    assert where.chip and plan.compute_seconds and plan.memory_seconds
    seconds = plan.compute_seconds, plan.memory_seconds
    return Side(where.chip.name, plan.chips, *(plan.batch / each for each in seconds))


def simulated(plan: BulkPlan, side: Side, *, every_core: bool) -> float:
    """Hours with trouble."""
    host = HOSTS[side.chip]
    costs = draw_costs(
        plan.items, SHARD, device_rate=plan.device / plan.hosts, rng=np.random.default_rng(0)
    )
    cluster = dataclasses.replace(
        TROUBLE,
        hosts=plan.hosts,
        cores=host.cores,
        network=host.network or math.inf,
        parallel=math.inf if every_core else DECODING.process / DECODING.core,
    )
    return simulate(costs, cluster).seconds / 3600


def row(model: str, name: str, items: str, side: Side) -> list[str]:
    plan = bulk_plan(
        ITEMS[items],
        chips=side.chips,
        host=HOSTS[side.chip],
        peak=side.peak,
        memory=side.memory,
        width=find(model).config.embed_dim,
        shard_size=SHARD,
    )
    every = dataclasses.replace(plan, decode=plan.decode_cores)
    return [
        model,
        items,
        name,
        f"{plan.device:,.0f}",
        hours(plan.hours),
        hours(simulated(plan, side, every_core=False)),
        plan.bound,
        hours(every.hours),
        hours(simulated(plan, side, every_core=True)),
        every.bound,
        f"{plan.cores_needed:,.0f} of {plan.cores}",
        f"{plan.read / 1e12:,.2f}",
        f"{plan.written / 1e12:,.3f}",
        f"{plan.shards:,}",
    ]


def hours(number: float) -> str:
    return f"{number:.2g}" if number < 10 else f"{number:,.0f}"


HEAD = (
    "model | images | on | images/s of the chips | hours, planned | simulated | bound by "
    "| hours if every core decoded | simulated | bound by | cores a host to keep up "
    "| read TB | written TB | shards"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    lines = []
    for model in MODELS:
        for name, slice_ in SLICES.items():
            side = rates(model, slice_)
            for items in ITEMS:
                cells = row(model, name, items, side)
                lines.append("| " + " | ".join(cells) + " |")
                print(lines[-1], flush=True)
    trouble = (
        f"{TROUBLE.slow_share:.0%} of the hosts at {TROUBLE.slow:g} of the others' speed, a "
        f"process that dies every {1 / TROUBLE.deaths / 24:.0f} days and is replaced after "
        f"{TROUBLE.replaced:.0f} s, {TROUBLE.throttled:.0%} of the requests refused once, "
        f"{TROUBLE.start:.0f} s until a process begins, and images of which one in a hundred "
        "has six times the mean of pixels"
    )
    text = [
        f"By `python benchmarks/job_table.py`, jax {jax.__version__}: planned and simulated, not "
        "run. `--store float32`, one process on each host. Simulated with "
        f"{trouble}. One process and those that decode for it, 16 unless more are asked for, make "
        f'{DECODING.process:,.0f} images/s; "if every core decoded" is a job with more of them '
        "(`--decode-processes`), which has not been measured.",
        "",
        f"| {HEAD} |",
        "|---|---:|---|" + "---:|" * 3 + "---|" + "---:|" * 2 + "---|" + "---:|" * 4,
        *lines,
    ]
    args.out.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
