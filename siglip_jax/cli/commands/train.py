"""Train with the sigmoid loss, as a recipe says; see recipes/ for some.

  siglip-jax train recipes/emoji.toml --out runs/emoji

The same command goes on after an interruption, at the very next example, and ends with
the same weights. SIGTERM and Ctrl-C save first. The result, runs/emoji/model, is what
score, embed and convert take as a model; runs/emoji/metrics.jsonl has a line a step.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from siglip_jax.training import Progress

NAME = "train"
HELP = "with the sigmoid loss, from scratch or from any checkpoint"
USAGE = "%(prog)s RECIPE --out FOLDER [options]"
STOPPED = 143  # what a shell reports of a command that SIGTERM ended


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="of the run")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="in place of what the recipe says, such as optimizer.lr=1e-4; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="the result for programs")


def run(args: argparse.Namespace) -> int:
    from siglip_jax.cli.model_arguments import available_mesh
    from siglip_jax.training import read_recipe, train

    recipe = read_recipe(args.recipe, args.set)
    mesh = available_mesh()
    with _Screen() as screen:
        result = train(recipe, args.out, mesh=mesh, report=screen.report)
    if args.json:
        outcome = {"step": result.step, "finished": result.finished, "metrics": result.metrics}
        json.dump(outcome | {"model": str(result.model or "")}, sys.stdout, indent=1)
        print()
    elif result.finished:
        print(f"{result.step} steps; the model is {result.model}")
        for name, value in result.metrics.items():
            print(f"{name:22}{value:8.2%}")
    if not result.finished:
        print(
            f"siglip-jax: stopped after step {result.step} and saved; the same command goes on",
            file=sys.stderr,
        )
        return STOPPED
    return 0


class _Screen:
    """A bar with the last numbers, on a terminal; a line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._said = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def report(self, progress: "Progress") -> None:
        if sys.stderr.isatty():
            self._draw(progress)
        else:
            self._say(progress)

    def _say(self, progress: "Progress") -> None:
        import time

        now = time.monotonic()
        last = progress.done == progress.total or progress.what == "evaluated"
        if progress.what == "evaluating" or (not last and now - self._said < 10):
            return
        self._said = now
        numbers = _numbers(progress)
        print(f"{progress.what} {progress.done}/{progress.total} {numbers}", file=sys.stderr)

    def _draw(self, progress: "Progress") -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=Console(stderr=True, highlight=False),
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=progress.total, numbers="")
        if progress.what == "evaluated":
            self._bar.console.print(f"step {progress.done}: {_numbers(progress)}")
            return
        self._bar.update(
            self._task,
            description=progress.what,
            completed=progress.done,
            total=progress.total,
            numbers=_numbers(progress),
        )


def _numbers(progress: "Progress") -> str:
    shown = {
        name: value
        for name, value in progress.values.items()
        if name in ("loss", "seconds") or "recall@1" in name
    }
    return " ".join(f"{name} {value:.4g}" for name, value in shown.items())
