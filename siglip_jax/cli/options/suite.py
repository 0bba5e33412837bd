"""The options of `evaluate --suite`, and how a suite is run and told of."""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip_jax.activity import activity
from siglip_jax.cli.options.data import COLUMNS, max_error_share
from siglip_jax.cli.options.model import load_model, opened_model
from siglip_jax.cli.options.task import OF_TASKS
from siglip_jax.cli.output import aligned, print_json, printable
from siglip_jax.messages import counted

if TYPE_CHECKING:
    from siglip_jax.suites import SuiteResult

# The keys of siglip_jax.suites.SUITES, which comes with jax.
SUITES = ("imagenet", "vtab+", "datacomp", "retrieval", "xm3600", "offline")
_OF_SUITES = ("only", "out", "figure")
# Templates can be chosen for all tasks of a suite.
_NOT_OF_SUITES = (*(OF_TASKS.keys() - {"templates"}), *COLUMNS)


def add_suite_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("suites: many data sets, beside published values")
    group.add_argument(
        "--suite",
        choices=SUITES,
        metavar="NAME",
        help=f"{', '.join(SUITES)}; DATA holds a folder for each of its tasks, or is tfds",
    )
    group.add_argument(
        "--only", nargs="+", metavar="TASK", help="measure these tasks of the suite only"
    )
    group.add_argument(
        "--out",
        metavar="FOLDER",
        help="keep embeddings and metrics: the same command goes on where it was interrupted",
    )
    group.add_argument(
        "--figure", metavar="FILE", help="draw ours against published, as .png or .svg"
    )


def refuse_suite_arguments(args: argparse.Namespace) -> None:
    """A ValueError if an option of suites is given without one."""
    for option in _OF_SUITES:
        if getattr(args, option) is not None:
            raise ValueError(f"--{option} is for --suite")


def run_suite_command(args: argparse.Namespace) -> int:
    """Runs the suite that the arguments ask for; the exit code."""
    from siglip_jax.suites.catalogue import chosen, find_suite

    if args.task is not None:
        raise ValueError("--task: a suite says what is measured; leave it out, or --suite")
    for option in sorted(_NOT_OF_SUITES):
        if getattr(args, option) not in (None, False):
            name = option.replace("_", "-")
            raise ValueError(f"--{name}: a suite says what is measured; leave it out")
    if len(args.data) > 1:
        raise ValueError(f"--suite takes one DATA, which holds all tasks, got {len(args.data)}")
    suite = find_suite(args.suite)
    try:
        chosen(suite, args.only)
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    if args.figure:
        from siglip_jax.suites.figures import check_figure

        try:
            check_figure(Path(args.figure).expanduser())
        except ValueError as error:
            raise ValueError(f"--figure: {error}") from error
    opened = opened_model(args)
    name = opened.name
    loaded = False

    def load() -> Any:
        nonlocal loaded
        loaded = True
        return load_model(args, images=True, texts=True, what="a suite")

    from siglip_jax.suites import run_suite

    with contextlib.ExitStack() as stack:
        out = args.out or stack.enter_context(tempfile.TemporaryDirectory())
        step = stack.enter_context(activity(f"measuring {suite.name}", unit="items"))

        def report(task: str, progress: Any) -> None:
            step.update(progress.done, progress.total, what=f"embedding {task}")

        try:
            result = run_suite(
                suite,
                args.data[0],
                out,
                model=load,
                name=name,
                only=args.only,
                templates=args.templates,
                batch_size=args.batch_size,
                max_error_share=max_error_share(args),
                report=report,
            )
        finally:
            if not loaded:
                opened.close()
        _figures(args, result)
        if args.json:
            print_json(_described(result, args.out))
        else:
            _print(result)
    return result.code


def _figures(args: argparse.Namespace, result: "SuiteResult") -> None:
    """Draws what is asked for, and with --out where that is possible."""
    from siglip_jax.suites.comparison import table
    from siglip_jax.suites.figures import write_figure

    if not result.results:
        return
    rows, title = table(result), f"{result.model}, {result.suite.name}"
    if args.figure:
        write_figure(rows, title, Path(args.figure).expanduser())
    if args.out:
        with contextlib.suppress(ValueError):  # matplotlib is an extra
            write_figure(rows, title, Path(args.out).expanduser() / "figure.png")


def _described(result: "SuiteResult", out: str | None) -> dict[str, Any]:
    from siglip_jax.suites.comparison import describe, table

    return {
        "suite": result.suite.name,
        "model": result.model,
        "profile": result.profile,
        "out": out,
        "results": [each.describe() for each in result.results.values()],
        "missing": dict(result.missing),
        "table": [describe(row) for row in table(result)],
    }


def _print(result: "SuiteResult") -> None:
    from siglip_jax.suites.comparison import cells, table

    print(aligned(cells(table(result)), "llrrrll"))
    measured, total = len(result.results), len(result.tasks)
    print(f"\n{measured} of {counted(total, 'task')} of {result.suite.name} measured, ", end="")
    print(f"with {result.model} and profile {result.profile}")
    bad = sum(each.errors for each in result.results.values())
    if bad:
        print(f"{counted(bad, 'image')} could not be read and are left out")
    for name, why in result.missing.items():
        print(f"siglip-jax: {name}: {printable(why)}", file=sys.stderr)
    if result.missing and result.results:
        there = " ".join(result.results)
        print(f"siglip-jax: --only {there} asks for no others", file=sys.stderr)
