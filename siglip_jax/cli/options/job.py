"""The options of commands that run bulk jobs, and how they tell of them."""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from siglip_jax.activity import Activity, activity
from siglip_jax.cli.distributed import join
from siglip_jax.cli.options.data import add_data_arguments, add_former_share, max_error_share
from siglip_jax.cli.options.model import positive
from siglip_jax.cli.output import print_json, printable
from siglip_jax.jobs.engine import check_engine, named_engine
from siglip_jax.messages import counted

if TYPE_CHECKING:
    from siglip_jax.jobs import JobProgress, JobResult

_SHARD_SIZE = 2048
_FEATURES_SHARD_SIZE = 128
_DOING = {"embed": "embedding", "score": "scoring"}
# What only a job has: given without one, it would be ignored.
_OF_JOBS = (
    "image_column",
    "text_column",
    "key_column",
    "separator",
    "keep",
    "shard_size",
    "max_error_share",
    "decode_processes",
    "retry",
    "update",
    "shared",
    "part",
    "distributed",
    "engine",
)


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("bulk jobs (--out is a folder)")
    add_data_arguments(group)
    group.add_argument(
        "--keep",
        type=_names,
        metavar="NAME,NAME",
        help="columns of the source to carry along beside key and embedding, such as url,caption; "
        "of tars, fields of the .json",
    )
    group.add_argument(
        "--shard-size",
        type=positive,
        metavar="N",
        help="items a shard, done whole or not at all (a tar is a shard; default: "
        f"{_SHARD_SIZE}, of patches {_FEATURES_SHARD_SIZE})",
    )
    add_former_share(group)
    group.add_argument(
        "--decode-processes",
        type=_count,
        metavar="N",
        help="processes that decode images, 0 for threads alone, which wait for Python's lock "
        "(default: one a core, up to 16, for 2,048 images or more beside an accelerator and 8 "
        "cores or more; else 0)",
    )
    retry = group.add_mutually_exclusive_group()
    retry.add_argument(
        "--retry",
        action="store_true",
        default=False,
        help="of a finished job, try again what failed for a reason that may pass, such as a "
        "server that did not answer",
    )
    retry.add_argument(
        "--retry-all",
        action="store_const",
        const="all",
        dest="retry",
        help="try again whatever could not be read",
    )
    group.add_argument(
        "--update",
        action="store_true",
        help="the source may have changed: embed what is new or replaced, take out what went",
    )
    group.add_argument(
        "--shared",
        action="store_true",
        help="share the folder with other processes that run the same command, on any host",
    )
    group.add_argument(
        "--part",
        type=_part,
        metavar="I/N",
        help="do the I-th of N parts of the shards (1/8 to 8/8); other processes do the others, "
        "with no word between them, into one bucket or shared folder",
    )
    group.add_argument(
        "--distributed",
        action="store_true",
        help="share it under jax.distributed, as TPU pods need (in a bucket as --part); all end if "
        "one process dies",
    )
    group.add_argument(
        "--engine",
        type=_engine,
        metavar="ENGINE",
        help="have actors of Ray do the shards: ray for the cluster that this host is part of "
        "(RAY_ADDRESS; else a new one of this host), ray://HOST:PORT for another (default: this "
        "process does them)",
    )


def _count(text: str) -> int:
    """argparse type of a count that may be 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def _names(text: str) -> list[str]:
    """argparse type of names of columns."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"expected names between commas, got {text!r}")
    return names


def _part(text: str) -> Any:
    """argparse type of a part."""
    from siglip_jax.jobs.part import Part

    try:
        return Part.of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _engine(text: str) -> str:
    """argparse type of an engine."""
    try:
        return named_engine(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def refuse_job_arguments(args: argparse.Namespace, why: str) -> None:
    """A ValueError if an option of bulk jobs is given without one."""
    given = [name for name in _OF_JOBS if getattr(args, name) not in (None, False)]
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} is for bulk jobs; {why}")


def shard_size(args: argparse.Namespace) -> int:
    whole = getattr(args, "layer", None) is None
    return args.shard_size or (_SHARD_SIZE if whole else _FEATURES_SHARD_SIZE)


def run_job(args: argparse.Namespace, call: Callable[..., "JobResult"]) -> int:
    """Runs `call(report=..., ...)`, with a bar, and says how it ended; the exit code."""
    if args.model is None:
        raise ValueError(
            "--model is missing: a bulk job has no default; give the name of a checkpoint, such as "
            "ViT-B-16-SigLIP (see siglip-jax list), or siglip_emoji for the bundled one"
        )
    check_engine(args)  # before the source is listed
    join(args.distributed)
    options: dict[str, Any] = {
        "shared": args.shared,
        "part": args.part,
        "retry": args.retry,
        "update": args.update,
        "engine": args.engine,
        "max_error_share": max_error_share(args),
        "decode_processes": args.decode_processes,
    }
    with activity(_DOING[args.command], unit="items") as step:
        result = call(batch_size=args.batch_size, report=_reporter(step), **options)
    if getattr(args, "json", False):
        print_json({"folder": str(result.folder), **result.describe()})
    else:
        print(printable(result.sentence()))
    if result.finished and result.errors and not args.retry:
        errors = counted(result.errors, "item is", "items are")
        what = "--retry-all tries their shards again"
        if result.passing:
            what = f"{result.passing:,} of them may be readable later, which --retry tries"
        print(f"siglip-jax: {errors} in error; {what}", file=sys.stderr)
    for line in result.unreadable:
        print(f"siglip-jax: error: {printable(line)}", file=sys.stderr)
    return result.code


def _reporter(step: Activity) -> "Callable[[JobProgress], None]":
    """Shows how far a job is; what its folder had already is no part of the rate."""
    began = False

    def report(progress: "JobProgress") -> None:
        nonlocal began
        if not began:
            step.rate.begin(progress.done)
            began = True
        said = [f"device {progress.busy:.0%} busy"] if progress.rate is not None else []
        said += [f"{progress.errors:,} unreadable"] if progress.errors else []
        step.update(progress.done, progress.total, ", ".join(said))

    return report
