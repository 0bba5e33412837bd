"""Show one checkpoint: architecture, names, preprocessing, where its files are from.

MODEL is any name of a released checkpoint, of which nothing is fetched; or a bundled
model, a repository of the Hugging Face hub, a local file or folder, of which only
headers are read. With --tree every parameter and its shape is listed, under
big_vision's names: of a released name as the model has them, of files as stored.
"""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip_jax.cli.description import describe, describe_config, describe_fine_tune
from siglip_jax.cli.options.checkpoint import (
    add_checkpoint_arguments,
    architecture,
    check_res,
    open_named,
)
from siglip_jax.cli.output import add_json_argument, print_json, printable
from siglip_jax.errors import ModelError
from siglip_jax.fetch import released
from siglip_jax.fine_tunes import find_fine_tune

if TYPE_CHECKING:
    from siglip_jax.converters import OpenCheckpoint

NAME = "show"
HELP = "show one checkpoint, by name or from a file"
USAGE = "%(prog)s MODEL [--architecture LIKE] [--res PX] [--tree] [--json]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="name, file or folder of a model")
    add_checkpoint_arguments(parser)
    parser.add_argument("--tree", action="store_true", help="every parameter and its shape")
    add_json_argument(parser, "the same")


def run(args: argparse.Namespace) -> int:
    facts, tree = _facts(args)
    if args.tree:
        facts["tree"] = tree
    if args.json:
        print_json(facts)
        return 0
    tree = facts.pop("tree", {})
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key.replace('_', ' '):{width}}  {printable(_text(value))}")
    width = max(map(len, tree), default=0)
    for name, leaf in tree.items():
        print(f"{name:{width}}  {leaf}")
    return 0


def _facts(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    from siglip_jax.weights.layout import parameter_shapes

    model, whole = args.model, args.tower is None and args.base is None
    if whole and (checkpoint := released(model)) is not None:
        check_res(args, checkpoint.config)
        shapes = parameter_shapes(checkpoint.config)
        return describe(checkpoint), {name: str(shape) for name, shape in shapes.items()}
    if whole and not Path(model).exists() and (tune := find_fine_tune(model)):
        check_res(args, tune.config)
        shapes = parameter_shapes(tune.config)
        return describe_fine_tune(tune), {name: str(shape) for name, shape in shapes.items()}
    opened, unstated = _open(args, args.res)
    with opened:
        reader, config = opened.reader, opened.config
        if not unstated:
            check_res(args, config)
    headers = reader.shapes
    facts: dict[str, Any] = {"path": reader.path, "format": opened.format}
    if opened.prefix:
        facts["behind"] = f"{opened.prefix}, of {len(opened.dropped)} other tensors"
    facts["parameters"] = sum(math.prod(header.shape) for header in headers.values())
    facts["bytes"] = sum(header.nbytes for header in headers.values())
    facts["dtypes"] = ", ".join(sorted({str(header.dtype) for header in headers.values()}))
    facts["ignored"] = list(reader.ignored)
    facts |= {"note": list(opened.reports)} if opened.reports else {}
    facts["released_as"] = opened.like.name if opened.like else None
    facts |= describe_config(config)
    if (images := opened.own_images) is not None and images.own:
        facts["preprocessing"] = images.beside(images.released, "released")
    if opened.classifier is not None:
        facts["classifier"] = opened.classifier.describe()
    if unstated:
        facts["res"] = unstated
    tree = {name: f"{h.shape} {h.dtype}" for name, h in sorted(headers.items())}
    return facts, tree


def _open(args: argparse.Namespace, res: int | None) -> "tuple[OpenCheckpoint, str | None]":
    """What `siglip_jax.load` reads, and the resolutions that it may be of, if it does not say."""
    try:
        return open_named(args.model, architecture(args), res, args.tower, args.base), None
    except ModelError as error:
        if error.needs != "res" or res is not None:
            raise
        least, most = error.values["res"], error.values["res_to"]
    return _open(args, least)[0], f"not stated: {least} to {most}"


def _text(value: Any) -> str:
    if isinstance(value, dict) and "labels" in value:
        labels, how = value["labels"], value["activation"] or "regression"
        some = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
        return f"{len(labels)} classes ({how} of {value['pooling']}): {some}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else "none" if value is None else str(value)
