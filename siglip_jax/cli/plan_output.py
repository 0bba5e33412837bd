"""Plans in words: of programs, of a whole training, of a bulk job."""

from typing import TYPE_CHECKING, Any

from siglip_jax.cli.output import aligned
from siglip_jax.messages import counted

if TYPE_CHECKING:
    from siglip_jax.plan import BulkPlan, Duration, Slice


def print_programs(name: str, on: str, target: "Slice", plans: list[dict[str, Any]]) -> None:
    """The table of compiled programs, and what their chips send each other."""
    import jax

    chips = len(target.devices)
    what = target.chip.name if target.chip else target.devices[0].device_kind
    memory = f" of {target.memory / 2**30:.2f} GiB" if target.memory else ""
    print(f"{name} on {on}: {chips} x {what}{memory}, jax {jax.__version__}")
    table = [("a chip", *(plan["task"] for plan in plans))]
    for title, value in _ROWS.items():
        cells = [_cell(value, plan) for plan in plans]
        if any(cells):
            table.append((title, *cells))
    print(aligned(table, "l" + "r" * len(plans)))
    for plan in plans:
        for each in plan.get("collectives", ()):
            print(
                f"{plan['task']}: {each['count']} x {each['kind']} of {each['array']}, "
                f"{_megabytes(each['nbytes'])} each, in {each['groups']} group(s) of "
                f"{each['group']} chips"
            )
        if "collectives" in plan and not plan["collectives"]:
            print(f"{plan['task']}: the chips send each other nothing")


def print_duration(duration: "Duration", chips: int, chip: str) -> None:
    """The days of a run, beside what a paper states."""
    print(f"the run: {duration.steps:,} steps, {duration.examples:,} examples")
    rows = [
        ("  matmuls at the published peak", f"{duration.compute:.2f} days"),
        ("  all bytes through HBM (upper bound)", f"{duration.memory:.2f} days"),
        ("  at the share of the peak that was measured", f"{duration.measured:.2f} days"),
    ]
    run = duration.published
    if run is not None:
        days = f"{'less than ' * run.less}{run.days:g} days"
        rows.append((f"  published, on {run.chips} chips of {run.chip}", days))
    print(aligned(rows, "lr"))
    if run is not None:
        print(f"published: {run.name}, {run.source}")
        if (run.chip, run.chips) == (chip, chips):
            share = duration.compute / run.days
            less = "more than " if run.less else ""
            print(f"published: that is {less}{share:.0%} of the peak, at this step's FLOPs")
    _print_assumptions(duration.assumptions)


def print_bulk(name: str, on: str, chip: str, plan: "BulkPlan") -> None:
    """A bulk job."""
    print(
        f"{name} on {on}: {plan.items:,} images, {plan.chips:,} x {chip} in "
        f"{counted(plan.hosts, 'host')} of {plan.cores} cores"
    )
    unknown = "unknown"
    network = unknown if plan.network is None else f"{plan.network:,.0f} images/s"
    processes = counted(plan.processes, "process", "processes")
    rows = [
        ("hours", f"{plan.hours:,.2f}"),
        ("  chip-hours", f"{plan.chip_hours:,.2f}"),
        ("  bound by", plan.bound),
        ("  if every core decoded in a process of its own", f"{plan.hours_all_cores:,.2f}"),
        ("the chips, at their peak", f"{plan.peak:,.0f} images/s"),
        ("the chips, at the share that was measured", f"{plan.device:,.0f} images/s"),
        (f"decoding, {processes} a host", f"{plan.decode:,.0f} images/s"),
        ("decoding, every core", f"{plan.decode_cores:,.0f} images/s"),
        ("  cores a host, to keep up with the chips", f"{plan.cores_needed:,.0f}"),
        ("the network", network),
        ("  read by each host", f"{plan.network_needed * 8 / 1e9:,.2f} Gbit/s"),
        ("read", _bytes(plan.read)),
        ("written", _bytes(plan.written)),
        ("shards", f"{plan.shards:,}"),
    ]
    print(aligned(rows, "lr"))
    _print_assumptions(plan.assumptions)


def _print_assumptions(assumptions: tuple[str, ...]) -> None:
    for each in assumptions:
        print(f"assumed: {each}")


def _cell(value: Any, plan: dict[str, Any]) -> str:
    try:
        return value(plan)
    except (KeyError, TypeError):  # a program that does not fit, a chip without numbers
        return ""


def _megabytes(nbytes: float) -> str:
    return f"{nbytes / 1e6:,.1f} MB"


def _bytes(nbytes: float) -> str:
    return f"{nbytes / 1e12:,.2f} TB" if nbytes >= 1e12 else f"{nbytes / 1e9:,.2f} GB"


_ROWS = {
    "batch": lambda p: f"{p['batch'] // p['chips']:,}",
    "arguments": lambda p: _megabytes(p["arguments"]),
    "  of which weights": lambda p: _megabytes(p["weights"]),
    "outputs": lambda p: _megabytes(p["outputs"]),
    "temporary": lambda p: _megabytes(p["temporary"]),
    "memory needed": lambda p: _megabytes(p["total"]),
    "peak memory (XLA)": lambda p: _megabytes(p["peak"] + 0),
    "share of the chip's memory": lambda p: f"{p['total'] / p['capacity']:.1%}",
    "largest batch": lambda p: f"{p['largest']:,}" if p["largest"] else "none fits",
    "GFLOP, XLA": lambda p: f"{p['flops'] / 1e9:,.1f}",
    "GFLOP, analytic": lambda p: f"{p['analytic'] / 1e9:,.1f}",
    "XLA / analytic": lambda p: f"{p['flops'] / p['analytic']:.3f}",
    "loop bodies multiplied": lambda p: (
        "trip count unknown" if p["loops"] is None else str(p["loops"]) if p["loops"] else ""
    ),
    "GB accessed (upper bound)": lambda p: f"{p['nbytes'] / 1e9:,.2f}",
    "compute time (matmuls)": lambda p: f"{1e3 * p['compute_seconds']:,.2f} ms",
    "HBM time (upper bound)": lambda p: f"{1e3 * p['memory_seconds']:,.2f} ms",
    "items/s, all chips": lambda p: f"{p['rate']:,.0f}",
    "  if limited by compute": lambda p: f"{p['batch'] / p['compute_seconds']:,.0f}",
    "compiled in": lambda p: f"{p['compile_seconds']:.1f} s",
}
