"""`plan --items`: a bulk job of so many images."""

import argparse
import math
import re
from typing import Any

from siglip_jax.cli.options.model import positive
from siglip_jax.cli.output import print_json
from siglip_jax.cli.plan_output import print_bulk
from siglip_jax.config import Siglip

_OF_ITEMS = ("image_bytes", "decode_rate", "processes")
_MOST = 10**15


def add_items_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a bulk job (--items)")
    group.add_argument(
        "--items",
        type=_count,
        metavar="N",
        help="plan embedding so many images, such as 5e9",
    )
    group.add_argument(
        "--image-bytes",
        type=_above_zero,
        metavar="N",
        help="of an image's file, on average (default: 42e3, a JPEG of 500x375)",
    )
    group.add_argument(
        "--decode-rate",
        type=_above_zero,
        metavar="N",
        help="images a second that one core decodes (default: 848, of such a JPEG)",
    )
    group.add_argument(
        "--processes", type=positive, metavar="N", help="of the job, on each host (default: 1)"
    )


def _count(text: str) -> int:
    """argparse type of a count that may be written as 5e9."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value <= _MOST or value != int(value):
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 1 to 1e15, such as 5e9, got {text!r}"
        )
    return int(value)


def _above_zero(text: str) -> float:
    """argparse type of a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def check_items(args: argparse.Namespace) -> None:
    """A ValueError if options of bulk jobs do not go with the others."""
    if args.items is None:
        given = [name for name in _OF_ITEMS if getattr(args, name) is not None]
        if given:
            raise ValueError(f"--{given[0].replace('_', '-')} is for a bulk job; give --items N")
        return
    if args.train:
        raise ValueError("--items is for embedding images; a recipe says its own steps")
    if args.task not in (None, "images"):
        raise ValueError(f"--items plans embedding images; leave out --task {args.task}")
    if args.save:
        raise ValueError("--save is for programs; leave out --items")


def gpus(on: str) -> tuple[str, int] | None:
    """The GPU and how many of `H100`, `H100:8`; None for anything else.

    >>> gpus("h100:8"), gpus("H200"), gpus("v5e:4x4")
    (('H100', 8), ('H200', 1), None)
    """
    found = re.fullmatch(r"(h100|h200)(?::([1-9]\d{0,5}))?", on.lower())
    return found and (found[1].upper(), int(found[2] or 1))


def plan_items(args: argparse.Namespace, config: Siglip, compiled: dict[str, Any] | None) -> int:
    """Prints the plan of a bulk job.

    Args:
      compiled: the plan of the image tower on a slice; None for GPUs, of which the FLOPs are
        counted from the configuration.

    Raises:
      ValueError: if nothing is published of the chip.
    """
    from siglip_jax.plan import CHIPS, HOSTS, bulk_plan
    from siglip_jax.plan.flops import image_flops

    memory = math.inf
    if compiled is None:
        name, chips = gpus(args.on) or ("", 0)
        chip = next(chip for chip in CHIPS if chip.name == name)
        precision = "highest" if args.dtype == "float32" else "default"
        peak = chips * chip.peak(precision) / image_flops(config, args.patches)
    else:
        name, chips, plan = compiled["chip"], compiled["chips"], compiled["plan"]
        if name not in HOSTS:
            raise ValueError(
                f"--items: nothing is published of the devices of {args.on}; give a slice such as "
                "v5e:4x4, or H100:8"
            )
        if "error" in plan:
            raise ValueError(plan["error"])
        peak, memory = (
            plan["batch"] / plan[side] for side in ("compute_seconds", "memory_seconds")
        )
    given = {"image_bytes": args.image_bytes, "core_rate": args.decode_rate}
    bulk = bulk_plan(
        args.items,
        chips=chips,
        host=HOSTS[name],
        peak=peak,
        memory=memory,
        width=config.embed_dim,
        processes=args.processes or 1,
        **{key: value for key, value in given.items() if value is not None},
    )
    if args.json:
        print_json({"model": args.model, "on": args.on, "chip": name, **bulk.to_dict()})
    else:
        print_bulk(args.model, args.on, name, bulk)
    return 0
