"""Sigmoid against softmax at batch sizes 16 to 2,048, in small.

    python recipes/emoji/build.py --out data/emoji
    python benchmarks/emoji_batch_sizes.py

Figure 2 of arXiv 2303.15343 on the emoji data: the same number of pictures seen (131,072) at
every batch size, and the first value of the bias (its table 4). Learning rates follow one rule,
read from a sweep at 64 and 1,024 with another seed. Finished runs are kept and skipped, so that
it can be stopped at any time; about a CPU-minute each.

Results: benchmarks/RESULTS.md.
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from emoji_trial import MODEL, TESTS, Trial, read_task, run

REPO = Path(__file__).resolve().parents[1]
LOSSES = ("sigmoid", "softmax")
BATCHES = (16, 64, 256, 1024, 2048)
SEEDS = (0, 1, 2)
EXAMPLES = 131_072  # pictures seen: 64 batches of the largest size
SWEEP = {64: (5e-4, 1e-3, 2e-3), 1024: (1e-3, 2e-3, 4e-3)}
# Temperature and bias before training. A bias of None is none: 0, and frozen.
ABLATION = {
    (10.0, -10.0): "t'=log 10\nb=-10",
    (10.0, 0.0): "t'=log 10\nb=0",
    (10.0, None): "t'=log 10\nno b",
}
ABLATION_BATCH = 256


def learning_rate(loss: str, batch: int) -> float:
    """The rule that all runs follow but those of the sweep, which it was read from."""
    if batch >= 1024:
        return {"sigmoid": 1e-3, "softmax": 2e-3}[loss]
    return min(1e-3 * (batch / 16) ** 0.5, 2e-3)


def sweep() -> list[Trial]:
    """The runs that the learning rates were chosen by; their seed is none of the others'."""
    return [
        Trial(loss=loss, batch=batch, lr=lr, examples=EXAMPLES, seed=100)
        for batch, rates in SWEEP.items()
        for loss in LOSSES
        for lr in rates
    ]


def grid() -> list[Trial]:
    return [
        Trial(loss=loss, batch=batch, lr=learning_rate(loss, batch), examples=EXAMPLES, seed=seed)
        for seed in SEEDS
        for batch in BATCHES
        for loss in LOSSES
    ]


def ablation() -> list[Trial]:
    """Its first row is in the grid as well."""
    base = Trial(
        loss="sigmoid",
        batch=ABLATION_BATCH,
        lr=learning_rate("sigmoid", ABLATION_BATCH),
        examples=EXAMPLES,
    )
    return [
        dataclasses.replace(base, seed=seed, temperature=t, bias=b)
        for seed in SEEDS
        for t, b in ABLATION
    ]


def finished(trial: Trial, work: Path) -> Path:
    """Where the result of a run lies, once there is one."""
    return work / ("_".join(map(str, dataclasses.astuple(trial))) + ".json")


def run_all(data: Path, work: Path, trials: list[Trial]) -> None:
    """Runs what is not there yet. Several processes can share the trials, not one trial."""
    task = None
    for trial in trials:
        path = finished(trial, work)
        if path.exists():
            continue
        task = task or read_task(data)
        result = run(task, trial)
        _write(path, json.dumps(result))
        print(path.stem, *(f"{name} {result[name]:.1%}" for name in TESTS), flush=True)


def gather(work: Path, target: Path) -> dict[str, Any]:
    """Writes every result that is there into one file."""
    found: dict[str, Any] = {"model": dataclasses.asdict(MODEL)}
    for name, trials in (("sweep", sweep()), ("grid", grid()), ("ablation", ablation())):
        paths = [finished(trial, work) for trial in trials]
        found[name] = [json.loads(path.read_text()) for path in paths if path.exists()]
    lines = [f"{json.dumps(name)}: {_rows(value)}" for name, value in found.items()]
    _write(target, "{\n" + ",\n".join(lines) + "\n}\n")
    return found


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(text)
    new.replace(path)


def _rows(value: Any) -> str:
    """A run a line, so that a diff can be read."""
    if isinstance(value, dict):
        return json.dumps(value)
    return "[\n " + ",\n ".join(map(json.dumps, value)) + "\n]" if value else "[]"


def summary(runs: list[dict[str, Any]], test: str, **fixed: Any) -> tuple[float, float, float]:
    """Mean, least and most over the seeds of the runs that are as `fixed` says."""
    values = [r[test] for r in runs if all(r[name] == value for name, value in fixed.items())]
    return (float(np.mean(values)), min(values), max(values)) if values else (np.nan,) * 3


def table(found: dict[str, Any]) -> str:
    """Means and ranges as Markdown."""
    lines = [f"| | {' | '.join(TESTS.values())} |", f"|---|{'---|' * len(TESTS)}"]
    rows = [
        (f"{loss}, batch {batch}", found["grid"], {"loss": loss, "batch": batch})
        for loss in LOSSES
        for batch in BATCHES
    ]
    rows += [
        (label, found["ablation"], {"temperature": t, "bias": b})
        for (t, b), label in ABLATION.items()
    ]
    for label, runs, fixed in rows:
        cells = ["{:.1%} ({:.1%} to {:.1%})".format(*summary(runs, t, **fixed)) for t in TESTS]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(found: dict[str, Any], target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import PercentFormatter

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axis, (test, title) in zip(axes, TESTS.items(), strict=False):
        for loss in LOSSES:
            of = [summary(found["grid"], test, loss=loss, batch=batch) for batch in BATCHES]
            mean, low, high = zip(*of, strict=True)
            axis.plot(BATCHES, mean, marker="o", label=loss)
            axis.fill_between(BATCHES, low, high, alpha=0.2)
        axis.set(xscale="log", xticks=BATCHES, xticklabels=BATCHES, title=title)
        axis.set(xlabel=f"batch size ({EXAMPLES:,} pictures seen by all)", ylabel="right")
        axis.minorticks_off()
        axis.legend(title=f"mean and range of {len(SEEDS)} seeds")
    for place, (t, b) in enumerate(ABLATION):
        for test, colour in zip(TESTS, ("tab:green", "tab:purple"), strict=True):
            mean, low, high = summary(found["ablation"], test, temperature=t, bias=b)
            error = [[mean - low], [high - mean]]
            label = TESTS[test] if place == 0 else None
            axes[2].errorbar(place, mean, error, fmt="o", capsize=4, color=colour, label=label)
    axes[2].set(xticks=range(len(ABLATION)), xticklabels=ABLATION.values())
    axes[2].set(title=f"sigmoid at batch {ABLATION_BATCH}: where t' and b begin", ylabel="right")
    axes[2].legend()
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.grid(alpha=0.3)
    figure.savefig(target, dpi=110)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPO / "data" / "emoji")
    parser.add_argument("--work", type=Path, default=REPO / "runs" / "emoji_batch_sizes")
    parser.add_argument("--only", choices=("sweep", "table"), help="just the sweep, or none")
    parser.add_argument("--loss", choices=LOSSES, help="one process for each, on two cores")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    trials = {"sweep": sweep(), "table": []}.get(given.only, grid() + ablation() + sweep())
    trials = [trial for trial in trials if given.loss in (None, trial.loss)]
    run_all(given.data, given.work, trials)
    found = gather(given.work, Path(__file__).with_suffix(".json"))
    plot(found, Path(__file__).with_suffix(".png"))
    print(table(found))


if __name__ == "__main__":
    main()
