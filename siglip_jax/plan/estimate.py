"""A program compiled ahead of time for a slice, and what the compiler says of it."""

import dataclasses
import re
import time
from typing import Any

import jax

from siglip_jax.activity import activity
from siglip_jax.plan.collectives import Collective, collectives
from siglip_jax.plan.hlo import read_module
from siglip_jax.plan.kept import keep, plan_key, read_kept
from siglip_jax.plan.topology import Slice
from siglip_jax.plan.workloads import Workload
from siglip_jax.programs.compile_times import compiling


class TooLarge(ValueError):
    """A program that does not fit into a chip's memory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What one call of a program needs on one chip.

    Attributes:
      batch: items over all chips.
      arguments, outputs, temporary, aliased, code: bytes, as XLA's memory analysis has them.
      peak: bytes that are live at once, if the compiler says; on a TPU with what it keeps
        on the chip itself.
      capacity: bytes of memory of the chip.
      flops: as XLA counts them, loop bodies as often as they run.
      flops_once: XLA's own number, which counts a loop's body once.
      analytic: from the configuration, matmuls only.
      nbytes, nbytes_once: bytes accessed, likewise. An upper bound on the traffic of the
        memory, for what stays on the chip counts too.
      loops: how many loop bodies were multiplied; None where a loop's turns are unknown.
      compute_seconds, memory_seconds: at the chip's published peaks.
      compile_seconds: on the day that it was compiled; the same program is not compiled twice.
      compile_cpu_seconds: of all threads; other processes change it less than the clock's.
    """

    task: str
    batch: int
    chips: int
    arguments: int
    outputs: int
    temporary: int
    aliased: int
    code: int
    peak: int | None
    weights: int
    capacity: float | None
    flops: float
    flops_once: float
    analytic: int
    nbytes: float
    nbytes_once: float
    loops: int | None
    collectives: tuple[Collective, ...]
    compute_seconds: float | None
    memory_seconds: float | None
    lower_seconds: float
    compile_seconds: float
    compile_cpu_seconds: float

    @property
    def per_chip(self) -> int:
        return self.batch // self.chips

    @property
    def total(self) -> int:
        """Bytes of memory that must be free: arguments, outputs and temporaries."""
        return self.arguments + self.outputs - self.aliased + self.temporary

    @property
    def seconds(self) -> float | None:
        """Roofline: no call is faster than its matmuls; memory is an upper bound."""
        if self.compute_seconds is None or self.memory_seconds is None:
            return None
        return max(self.compute_seconds, self.memory_seconds)

    @property
    def rate(self) -> float | None:
        """Items a second on all chips at the roofline."""
        return self.batch / self.seconds if self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain = dataclasses.asdict(self)
        plain["collectives"] = [
            {**each._asdict(), "total": each.total} for each in self.collectives
        ]
        return plain | {"total": self.total, "seconds": self.seconds, "rate": self.rate}


def make_plan(workload: Workload, batch: int, target: Slice) -> Plan:
    """Compiles `workload` for `batch` items over all devices.

    Raises:
      ValueError: if the devices do not divide the batch.
      TooLarge: if the compiler finds that it does not fit.

    >>> import siglip_jax
    >>> from siglip_jax.config import Execution
    >>> from siglip_jax.plan import find_slice, scoring_workload, scoring_program
    >>> here, config = find_slice("local"), siglip_jax.load("siglip_emoji").config
    >>> program = scoring_program(config, here.devices, Execution())
    >>> plan = make_plan(scoring_workload("texts", program), 2 * len(here.devices), here)
    >>> plan.per_chip, plan.chips == len(here.devices)
    (2, True)
    """
    if target.name == "local":  # whose executables jax keeps
        return plan_and_program(workload, batch, target)[0]
    lowered, lowering = _lowered(workload, batch)
    key = plan_key(lowered, target)
    kept = read_kept(key)
    if kept is None:
        try:
            plan = _compiled(workload, batch, target, lowered, lowering)[0]
        except TooLarge as error:
            keep(key, {"too_large": str(error)})
            raise
        keep(key, {"plan": dataclasses.asdict(plan)})
        return plan
    if "too_large" in kept:
        raise TooLarge(kept["too_large"])
    each = tuple(Collective(*values) for values in kept["plan"]["collectives"])
    return Plan(**kept["plan"] | {"collectives": each, "lower_seconds": lowering})


def plan_and_program(
    workload: Workload, batch: int, target: Slice
) -> tuple[Plan, jax.stages.Compiled]:
    """As `make_plan`, and what was compiled."""
    return _compiled(workload, batch, target, *_lowered(workload, batch))


def _lowered(workload: Workload, batch: int) -> tuple[jax.stages.Lowered, float]:
    """The program for `batch` items, and the seconds that it took."""
    if batch < 1 or batch % workload.devices:
        least = -(-max(batch, 1) // workload.devices) * workload.devices
        raise ValueError(
            f"a batch of {batch} does not divide over {workload.devices} chips; "
            f"the next that does is {least}"
        )
    start = time.perf_counter()
    with activity(f"tracing {workload.task}, {batch:,} items"):
        lowered = workload.lower(batch)
    return lowered, time.perf_counter() - start


def _compiled(
    workload: Workload,
    batch: int,
    target: Slice,
    lowered: jax.stages.Lowered,
    lowering: float,
) -> tuple[Plan, jax.stages.Compiled]:
    what = f"{workload.task} for {target.name}, {batch:,} items"
    start, cpu = time.perf_counter(), time.process_time()
    try:
        with compiling(what, workload.weights):
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise TooLarge(_too_large(workload, batch, target, str(error))) from error
    seconds = lowering, time.perf_counter() - start, time.process_time() - cpu
    plan = _read(workload, batch, target, compiled, seconds)
    if plan.capacity and plan.total > plan.capacity:
        needed = f"{plan.total / 2**30:.2f} GiB"
        raise TooLarge(_too_large(workload, batch, target, needed))
    return plan, compiled


def _read(
    workload: Workload,
    batch: int,
    target: Slice,
    compiled: Any,
    seconds: tuple[float, float, float],
) -> Plan:
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    module = read_module(compiled.as_text())
    once, every = module.matmul_flops()
    flops, nbytes = float(cost.get("flops", 0)), float(cost.get("bytes accessed", 0))
    # What is not a matmul grows with the matmuls.
    all_flops = flops * every / once if once else flops
    all_bytes = nbytes + module.repeated_bytes()
    chip = target.chip
    # Older versions of jax and some compilers do not say.
    peak = getattr(memory, "peak_memory_in_bytes", 0) or None
    return Plan(
        task=workload.task,
        batch=batch,
        chips=workload.devices,
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        peak=peak,
        weights=workload.weights,
        capacity=target.memory,
        flops=all_flops,
        flops_once=flops,
        analytic=workload.flops(batch),
        nbytes=all_bytes,
        nbytes_once=nbytes,
        loops=None if module.unknown else module.loops,
        collectives=tuple(collectives(module, workload.devices)),
        compute_seconds=all_flops / chip.peak(workload.precision) if chip else None,
        memory_seconds=all_bytes / chip.bandwidth if chip else None,
        lower_seconds=seconds[0],
        compile_seconds=seconds[1],
        compile_cpu_seconds=seconds[2],
    )


def _too_large(workload: Workload, batch: int, target: Slice, message: str) -> str:
    found = re.search(r"\(([\d.]+[KMG])\) exceeds available HBM \(([\d.]+[KMG])\)", message)
    found = found or re.search(r"Used ([\d.]+[KMG]) of ([\d.]+[KMG])", message)
    needed = f"{found[1]}iB of {found[2]}iB" if found else next(iter(message.splitlines()), "")
    each = batch // workload.devices
    text = (
        f"{workload.task}, {each} a chip, does not fit into the memory of {target.name}: {needed}"
    )
    if target.memory and workload.weights > 0.9 * target.memory and not workload.fsdp:
        share = f"{workload.weights / 2**30:.1f} GiB"
        return f"{text}; its weights alone are {share}: split them over the chips (--fsdp)"
    return text


def largest_batch(
    workload: Workload, target: Slice, known: Plan | None = None, most: int = 8192
) -> int:
    """Items a chip, a power of two, in the largest program that compiles and fits.

    Begins where memory grows to in a straight line from `known`, so that two or three compiles
    are enough.

    Args:
      most: where to stop.

    Returns:
      0 if one item a chip does not fit.

    Raises:
      ValueError: if the memory of the chips is unknown.

    See `make_plan` for an example.
    """
    if target.memory is None:
        raise ValueError(f"the memory of {target.name} is unknown, so no batch is too large for it")

    def fits(each: int) -> bool:
        if known and each <= known.per_chip:
            return True
        try:
            make_plan(workload, each * workload.devices, target)
        except TooLarge:
            return False
        return True

    each = 128
    if known and known.total > known.weights:
        slope = (known.total - known.weights) / known.per_chip
        each = max(1, int((target.memory - known.weights) / slope))
    each = min(1 << (each.bit_length() - 1), most)
    if fits(each):
        while each < most and fits(2 * each):
            each *= 2
        return each
    while each > 1:
        each //= 2
        if fits(each):
            return each
    return 0
