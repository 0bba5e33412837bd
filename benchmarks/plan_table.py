"""Every released checkpoint on three TPU slices, compiled without a TPU.

    pip install "jax[tpu]"
    JAX_PLATFORMS=cpu python benchmarks/plan_table.py

Writes benchmarks/plan_table.md. Each program is compiled once: checkpoints that share a tower
share its row's numbers. Finished programs are kept in runs/plan_table.jsonl, and the same
command goes on with the others.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax

from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.config import Execution
from siglip_jax.plan import TooLarge, find_slice, make_plan, scoring_program, scoring_workload

REPO = Path(__file__).parents[1]
SLICES = ("v5e:2x2", "v6e:2x2", "v5p:2x2x1")
EACH = 128
EXECUTION = Execution(dtype="bfloat16", scan_image=True, scan_text=True)


def key(slice_: str, task: str, tower: Any) -> str:
    """The same for programs that are the same."""
    facts = json.dumps(dataclasses.asdict(tower), sort_keys=True)
    return f"{slice_} {task} {type(tower).__name__} {facts}"


def wanted() -> list[tuple[str, str, Any, str]]:
    """(slice, task, config, key) of every distinct program, small ones first."""
    found = {}
    for task in ("images", "texts"):
        for row in CHECKPOINTS:
            tower = row.config.vision if task == "images" else row.config.text
            for slice_ in SLICES:
                found.setdefault(key(slice_, task, tower), (slice_, task, row.config))
    return [(*program, name) for name, program in found.items()]


def compiled(rows: Path) -> dict[str, dict[str, Any]]:
    """All programs, those of an earlier run read from `rows`."""
    done = {}
    if rows.exists():
        for line in rows.read_text().splitlines():
            row = json.loads(line)
            done[row["key"]] = row
    programs = wanted()
    for number, (slice_, task, config, name) in enumerate(programs):
        if name in done:
            continue
        where = find_slice(slice_)
        job = scoring_workload(task, scoring_program(config, where.devices, EXECUTION))
        try:
            row = make_plan(job, EACH * len(where.devices), where).to_dict()
        except TooLarge as error:
            row = {"error": str(error)}
        done[name] = row | {"key": name}
        with rows.open("a") as file:
            file.write(json.dumps(done[name]) + "\n")
        print(f"{number + 1} of {len(programs)}: {task} on {slice_}", flush=True)
        jax.clear_caches()
    return done


def table(slice_: str, done: dict[str, dict[str, Any]]) -> list[str]:
    """One slice as Markdown; programs that are not compiled yet are empty."""
    where = find_slice(slice_)
    lines = [
        f"## {slice_}: {len(where.devices)} chips of {where.memory / 2**30:.2f} GiB, "
        f"{EACH} images or texts a chip",
        "",
        "| checkpoint | weights MB | images: temporary MB | memory | GFLOP an image | / analytic "
        "| MB accessed an image, at most | images/s | if memory were free | compile s "
        "| texts: temporary MB | memory | GFLOP a text | / analytic | texts/s | compile s |",
        "|---|" + "---:|" * 15,
    ]
    for row in CHECKPOINTS:
        image = done.get(key(slice_, "images", row.config.vision), {})
        text = done.get(key(slice_, "texts", row.config.text), {})
        weights = (
            [f"{(image['weights'] + text['weights']) / 1e6:,.0f}"] if text and image else ["-"]
        )
        cells = [row.name, *weights, *_cells(image, True), *_cells(text, False)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cells(plan: dict[str, Any], image: bool) -> list[str]:
    if not plan or "error" in plan:
        return ["does not fit" if plan else "-"] * (8 if image else 6)
    cells = [
        f"{plan['temporary'] / 1e6:,.0f}",
        f"{plan['total'] / plan['capacity']:.1%}",
        f"{plan['flops'] / EACH / 1e9:,.1f}",
        f"{plan['flops'] / plan['analytic']:.3f}",
    ]
    if image:
        cells.append(f"{plan['nbytes'] / EACH / 1e6:,.0f}")
    cells.append(f"{plan['rate']:,.0f}")
    if image:
        cells.append(f"{plan['batch'] / plan['compute_seconds']:,.0f}")
    return [*cells, f"{plan['compile_seconds']:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, default=REPO / "runs" / "plan_table.jsonl")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--only-write", action="store_true", help="compile nothing more")
    args = parser.parse_args()
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    if not args.only_write:
        compiled(args.rows)
    lines = args.rows.read_text().splitlines()
    done = {row["key"]: row for row in map(json.loads, lines)}
    from importlib.metadata import version

    missing = [name for *_, name in wanted() if name not in done]
    text = [
        "# All checkpoints on three TPU slices",
        "",
        f"By `python benchmarks/plan_table.py`, jax {jax.__version__}, libtpu "
        f"{version('libtpu')}: compiled, not run. Layers scanned, weights float32 and whole on "
        "each chip, image towers bfloat16, text towers float32 with bfloat16 products.",
        "",
        "FLOPs are XLA's with loop bodies as often as they run, and beside them the ratio to the "
        "analytic count. Bytes accessed are XLA's too: they include what never leaves the chip, "
        "so that images/s at the roofline is a lower bound where memory decides, and the next "
        "column an upper one. Compile times are of a busy machine with 2 cores. NaFlex: 256 "
        "patches an image.",
    ]
    if missing:
        text += ["", f"{len(missing)} of {len(wanted())} programs are not compiled yet (-)."]
    for slice_ in SLICES:
        text += ["", *table(slice_, done)]
    args.out.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
