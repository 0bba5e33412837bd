"""List the released checkpoints, with exact parameter counts and all their names."""

import argparse
import json
import sys

from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.cli.description import describe

NAME = "list"
HELP = "the released checkpoints"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="every fact, for programs")


def run(args: argparse.Namespace) -> int:
    if args.json:
        json.dump([describe(checkpoint) for checkpoint in CHECKPOINTS], sys.stdout, indent=1)
        print()
        return 0
    rows = [("NAME", "PARAMETERS", "INPUT", "TEXT", "IMAGENET", "OTHER NAMES")]
    for checkpoint in CHECKPOINTS:
        facts = describe(checkpoint)
        imagenet = checkpoint.accuracy.imagenet
        rows.append(
            (
                checkpoint.name,
                f"{checkpoint.params:,}",
                f"{facts['res']} px" if facts["res"] else "any",
                f"{checkpoint.config.text.length} {checkpoint.tokenizer}",
                "" if imagenet is None else f"{imagenet:.1f}",
                ", ".join(checkpoint.aliases),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        cells = [
            cell.rjust(width) if i in (1, 4) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        print("  ".join((*cells, row[5])).rstrip())
    return 0
