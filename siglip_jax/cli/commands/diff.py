"""Compare two checkpoints of any formats: architecture, tensors, every number.

A and B are each a released checkpoint's name, a file, a folder, or a repository of the
Hugging Face hub. Tensors go by big_vision's names whatever the format; one pair at a time
is in memory. Where one does not say its architecture, the other's is taken.

  siglip-jax diff before.npz after.npz
  siglip-jax diff siglip_b16_224 google/siglip-base-patch16-224

Exit code, as that of diff: 0 if every bit is the same, 1 if anything differs, 2 if one of
them cannot be read.
"""

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from siglip_jax.activity import activity
from siglip_jax.cli.options.checkpoint import (
    add_checkpoint_arguments,
    architecture,
    check_res,
    open_named,
)
from siglip_jax.cli.output import add_json_argument, aligned, print_json
from siglip_jax.config import Siglip
from siglip_jax.errors import ModelError

if TYPE_CHECKING:
    from siglip_jax.converters import OpenCheckpoint

NAME = "diff"
HELP = "compare two checkpoints, tensor by tensor"
USAGE = "%(prog)s A B [--json]"
_SHOWN = 20  # tensors, to a person


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="name, file, folder or repository of a checkpoint")
    parser.add_argument("b", metavar="B", help="the other checkpoint")
    add_checkpoint_arguments(parser)
    add_json_argument(parser, "everything")


def run(args: argparse.Namespace) -> int:
    a, b = _open(args)
    with a, b:
        _check_options(args, a, b)
        result = _result(args, a, b)
    if args.json:
        print_json(result)
    else:
        _print(result)
    return 0 if result["identical"] else 1


def _open(args: argparse.Namespace) -> "tuple[OpenCheckpoint, OpenCheckpoint]":
    config = architecture(args)
    try:
        a = _open_one(args, args.a, config, args.res)
    except ValueError as error:
        try:
            b = _open_one(args, args.b, config, args.res)
        except ValueError:
            raise error from None
        return _open_like(args, args.a, b, error), b
    try:
        return a, _open_one(args, args.b, config, args.res)
    except ValueError as error:
        return a, _open_like(args, args.b, a, error)


def _open_one(
    args: argparse.Namespace, name: str, config: Siglip | None, res: int | None
) -> "OpenCheckpoint":
    """The checkpoint `name`, merged into `--base` if it is an adapter."""
    try:
        return open_named(name, config, res, args.tower)
    except ModelError as error:
        if error.needs != "base" or args.base is None:
            raise
    return open_named(name, config, res, args.tower, args.base)


def _open_like(
    args: argparse.Namespace, name: str, other: "OpenCheckpoint", error: ValueError
) -> "OpenCheckpoint":
    """`name` with the architecture of the other; raises `error` if it has another."""
    try:
        return _open_one(args, name, other.config, None)
    except ValueError:
        pass
    other.close()
    raise error


def _check_options(args: argparse.Namespace, a: "OpenCheckpoint", b: "OpenCheckpoint") -> None:
    from siglip_jax.converters.adapters import is_adapter

    check_res(args, a.config, b.config)
    if args.base is not None and not (is_adapter(a.path) or is_adapter(b.path)):
        raise ValueError("--base is of a PEFT adapter; neither A nor B is one")


def _result(args: argparse.Namespace, a: "OpenCheckpoint", b: "OpenCheckpoint") -> dict[str, Any]:
    from siglip_jax.converters.difference import (
        architecture_differences,
        names_apart,
        tensor_differences,
    )

    only_in_a, only_in_b = names_apart(a, b)
    apart = architecture_differences(a, b)
    with activity("comparing", unit="bytes") as step:
        tensors = [dataclasses.asdict(t) for t in tensor_differences(a, b, step.update)]
    differ = [t for t in tensors if not t["identical"]]
    largest = max((t["largest"] for t in differ if t["largest"] is not None), default=0.0)
    return {
        "a": {"name": args.a, "format": a.format},
        "b": {"name": args.b, "format": b.format},
        "identical": not (differ or only_in_a or only_in_b or apart),
        "architecture": {key: {"a": x, "b": y} for key, (x, y) in apart.items()},
        "only_in_a": only_in_a,
        "only_in_b": only_in_b,
        "compared": len(tensors),
        "differ": len(differ),
        "largest": largest,
        "tensors": tensors,
    }


def _print(result: dict[str, Any]) -> None:
    rows = [(letter, result[letter]["name"], result[letter]["format"]) for letter in "ab"]
    print(aligned([(letter.upper(), name, f"({kind})") for letter, name, kind in rows]))
    for key, pair in result["architecture"].items():
        print(f"architecture: {key} is {pair['a']} in A, {pair['b']} in B")
    for letter in "ab":
        for name in result[f"only_in_{letter}"]:
            print(f"only in {letter.upper()}: {name}")
    differ = [t for t in result["tensors"] if not t["identical"]]
    # The worst first: those of another shape, then by how far they are apart.
    differ.sort(key=lambda t: -float("inf") if t["largest"] is None else -t["largest"])
    shown = differ[:_SHOWN] if sys.stdout.isatty() else differ
    if shown:
        print(aligned([("TENSOR", "LARGEST DIFFERENCE", "LARGEST VALUE", ""), *map(_row, shown)]))
    if len(shown) < len(differ):
        print(f"and {len(differ) - len(shown)} more; --json has them all")
    print(_summary(result))


def _row(tensor: dict[str, Any]) -> tuple[str, str, str, str]:
    words = []
    for what in ("shapes", "dtypes"):
        one, other = tensor[what]
        if one != other:
            words.append(f"{one} in A, {other} in B")
    if tensor["largest"] is None:
        return tensor["name"], "", "", ", ".join(words)
    if tensor["largest"] == 0 and not words:
        words.append("only in bits")  # the sign of a zero, or which NaN
    largest, scale = f"{tensor['largest']:.3g}", f"{tensor['scale']:.3g}"
    return tensor["name"], largest, scale, ", ".join(words)


def _summary(result: dict[str, Any]) -> str:
    if result["identical"]:
        return f"identical: {result['compared']} tensors, every bit"
    same = result["compared"] - result["differ"]
    said = f"{result['compared']} tensors in both: {same} identical, {result['differ']} differ"
    return said + (f", by up to {result['largest']:.3g}" if result["differ"] else "")
