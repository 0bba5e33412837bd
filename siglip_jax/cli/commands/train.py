"""Train with the sigmoid loss, as a recipe says; see recipes/ for some.

  siglip-jax train recipes/emoji.toml --out runs/emoji

The same command goes on after an interruption, at the very next example, and ends with
the same weights. SIGTERM and Ctrl-C save first. The result, runs/emoji/model, is what
score, embed and convert take as a model; runs/emoji/metrics.jsonl has a line a step, and
TensorBoard and Weights & Biases have the same where they are installed. A run becomes
longer with more steps:

  siglip-jax train recipes/emoji.toml --out runs/emoji --set steps=30000
"""

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from siglip_jax.activity import Activity, activity
from siglip_jax.cli.output import add_json_argument, print_json
from siglip_jax.messages import counted

if TYPE_CHECKING:
    from siglip_jax.training import TrainingProgress

NAME = "train"
HELP = "train with the sigmoid loss, from scratch or from any checkpoint"
USAGE = "%(prog)s RECIPE --out FOLDER [options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="TOML file of the recipe")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of the run")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="setting in place of the recipe's, such as optimizer.lr=1e-4; may be repeated",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="train together with other processes under jax.distributed, as TPU pods need",
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from siglip_jax.cli.distributed import join
    from siglip_jax.cli.options.model import available_mesh
    from siglip_jax.training import read_recipe, train

    recipe = read_recipe(args.recipe, args.set)
    join(args.distributed)
    mesh = available_mesh()
    with activity("preparing", unit="steps") as step:
        tell = not (args.json or args.quiet)
        report = lambda progress: _report(step, progress, tell)  # noqa: E731
        result = train(recipe, args.out, mesh=mesh, report=report)
    if args.json:
        outcome = {"step": result.step, "finished": result.finished, "metrics": result.metrics}
        print_json(outcome | {"model": str(result.model or "")})
    elif result.finished:
        print(f"{counted(result.step, 'step')}; the model is {result.model}")
        for name, value in result.metrics.items():
            print(f"{name:22}{value:8.2%}")
    if not result.finished:
        print(
            f"siglip-jax: stopped after step {result.step} and saved; the same command goes on",
            file=sys.stderr,
        )
        # What a shell reports of a command that a signal ended.
        return 128 + (result.signal or signal.SIGTERM)
    return 0


def _report(step: Activity, progress: "TrainingProgress", tell: bool) -> None:
    """The last numbers, beside the progress; a line that stays for each evaluation."""
    numbers = _numbers(progress)
    if progress.what != "evaluated":
        step.update(progress.done, progress.total, numbers, what=progress.what)
    elif tell:
        print(f"siglip-jax: step {progress.done}: {numbers}", file=sys.stderr)


def _numbers(progress: "TrainingProgress") -> str:
    shown = {
        name: value
        for name, value in progress.values.items()
        if name in ("loss", "examples/s") or "recall@1" in name
    }
    return " ".join(f"{name} {value:.4g}" for name, value in shown.items())
