"""List the released checkpoints, with exact parameter counts and all their names.

With --fine-tunes it lists well-known fine-tunes instead, with their licences: their
files come from the hub.
"""

import argparse
import sys

from siglip_jax.checkpoints import CHECKPOINTS, Checkpoint
from siglip_jax.cli.description import describe, describe_fine_tune
from siglip_jax.cli.output import add_json_argument, aligned, print_json
from siglip_jax.fine_tunes import FINE_TUNES

NAME = "list"
HELP = "list the released checkpoints"
USAGE = "%(prog)s [--fine-tunes] [--json]"
_HEAD = ("NAME", "PARAMETERS", "INPUT", "TEXT", "IMAGENET")
_RIGHT = (1, 4)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fine-tunes", action="store_true", help="well-known fine-tunes, with their licences"
    )
    add_json_argument(parser, "every fact")


def run(args: argparse.Namespace) -> int:
    if args.fine_tunes:
        return _fine_tunes(args)
    if args.json:
        print_json([describe(checkpoint) for checkpoint in CHECKPOINTS])
        return 0
    rows = [_HEAD, *map(_row, CHECKPOINTS)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *lines = (
        "  ".join(
            cell.rjust(width) if i in _RIGHT else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    if sys.stdout.isatty():
        _print_for_a_person(head, lines)
        return 0
    print(f"{head}  OTHER NAMES")
    for line, checkpoint in zip(lines, CHECKPOINTS, strict=True):
        print(f"{line}  {', '.join(checkpoint.aliases)}")
    return 0


def _fine_tunes(args: argparse.Namespace) -> int:
    facts = [describe_fine_tune(tune) for tune in FINE_TUNES]
    if args.json:
        print_json(facts)
        return 0
    head = ("NAME", "PARAMETERS", "INPUT", "PROFILE", "LICENCE", "OTHER NAMES")
    rows = [
        (
            fact["name"],
            f"{fact['parameters']:,}",
            f"{fact['res']} px",
            fact["profile"],
            fact["licence"],
            ", ".join([fact["huggingface"], *fact["aliases"]]),
        )
        for fact in facts
    ]
    print(aligned([head, *rows], "lrllll"))
    return 0


def _row(checkpoint: Checkpoint) -> tuple[str, ...]:
    facts, imagenet = describe(checkpoint), checkpoint.accuracy.imagenet
    return (
        checkpoint.name,
        f"{checkpoint.params:,}",
        f"{facts['res']} px" if facts["res"] else "any",
        f"{checkpoint.config.text_tower.length} {checkpoint.tokenizer}",
        "" if imagenet is None else f"{imagenet:.1f}",
    )


def _print_for_a_person(head: str, lines: list[str]) -> None:
    """The other names below each row: beside it they would wrap into it."""
    import textwrap

    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(head, style="bold")
    for line, checkpoint in zip(lines, CHECKPOINTS, strict=True):
        console.print(line)
        # Spaces inside a name are kept together, so that no name is torn in two.
        names = ", ".join(alias.replace(" ", "\xa0") for alias in checkpoint.aliases)
        folded = textwrap.wrap(
            names, max(console.width - 3, 40), break_on_hyphens=False, break_long_words=False
        )
        for part in folded:
            console.print(f"  {part}".replace("\xa0", " "), style="dim", soft_wrap=True)
    console.print("Fine-tunes: siglip-jax list --fine-tunes", style="dim")
    console.print("Bundled: siglip_emoji, a small model of emoji (siglip-jax demo)", style="dim")
