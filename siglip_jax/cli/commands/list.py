"""List the released checkpoints, with exact parameter counts.

WORDS keep those that have all of them in one of their names, in which * and ? stand for
anything. On a terminal a checkpoint is a line; --names shows all that it is called, and
so does siglip-jax show NAME.

  siglip-jax list '*so400m*' --res 384

With --fine-tunes it lists well-known fine-tunes instead, with their licences: their
files come from the hub.
"""

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from typing import Any

from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.cli.description import describe, describe_fine_tune
from siglip_jax.cli.options.model import positive
from siglip_jax.cli.output import add_json_argument, aligned, print_json, screen
from siglip_jax.fine_tunes import FINE_TUNES
from siglip_jax.messages import did_you_mean

NAME = "list"
HELP = "list the released checkpoints"
USAGE = "%(prog)s [WORDS...] [--family FAMILY] [--res PX] [--fine-tunes] [options]"
FAMILIES = ("siglip", "siglip2")
_HEAD = ("NAME", "PARAMETERS", "INPUT", "TEXT", "IMAGENET")
_TUNE_HEAD = ("NAME", "PARAMETERS", "INPUT", "PROFILE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORDS",
        help="parts of a name, or patterns with * and ? in quotes",
    )
    parser.add_argument("--family", choices=FAMILIES, help="SigLIP or SigLIP 2 only")
    parser.add_argument(
        "--res", type=positive, metavar="PX", help="those that take images of this side"
    )
    parser.add_argument("--names", action="store_true", help="all names of each")
    parser.add_argument(
        "--fine-tunes", action="store_true", help="well-known fine-tunes, with their licences"
    )
    add_json_argument(parser, "every fact")


def run(args: argparse.Namespace) -> int:
    known = [describe_fine_tune(tune) for tune in FINE_TUNES]
    if not args.fine_tunes:
        known = [describe(checkpoint) for checkpoint in CHECKPOINTS]
    facts = [each for each in known if _is_meant(each, args)]
    if not facts:
        raise ValueError(f"nothing in the list is {_wanted(args)}{_hint(args, known)}")
    if args.json:
        print_json(facts)
        return 0
    rows = [_tune_row(each) if args.fine_tunes else _row(each) for each in facts]
    head = _TUNE_HEAD if args.fine_tunes else _HEAD
    if not sys.stdout.isatty():
        # A program finds all names in the same line.
        more = ["LICENCE", "OTHER NAMES"] if args.fine_tunes else ["OTHER NAMES"]
        named = [
            (*row, *([each["licence"]] if args.fine_tunes else []), ", ".join(_names(each)))
            for row, each in zip(rows, facts, strict=True)
        ]
        print(aligned([(*head, *more), *named], "lrllrl" if head is _HEAD else "lrllll"))
        return 0
    _print_for_a_person(aligned([head, *rows], "lrllr"[: len(head)]).splitlines(), facts, args)
    return 0


def _is_meant(facts: dict[str, Any], args: argparse.Namespace) -> bool:
    names = [name.lower() for name in (facts["name"], *_names(facts))]
    patterns = [
        word.lower() if set(word) & set("*?") else f"*{word.lower()}*" for word in args.words
    ]
    family = (facts.get("fine_tune_of") or facts["name"]).partition("_")[0]
    return (
        all(any(fnmatch.fnmatchcase(name, pattern) for name in names) for pattern in patterns)
        and args.family in (None, family)
        and args.res in (None, facts["res"])
    )


def _wanted(args: argparse.Namespace) -> str:
    """What was asked for, as it was typed."""
    wanted = [repr(word) for word in args.words]
    wanted += [f"of --family {args.family}"] if args.family else []
    wanted += [f"of --res {args.res}"] if args.res else []
    return " and ".join(wanted)


def _hint(args: argparse.Namespace, known: list[dict[str, Any]]) -> str:
    if args.res is not None and args.res not in (sides := {f["res"] for f in known} - {None}):
        return f"; there are {', '.join(map(str, sorted(sides)))} px"
    names = [name for facts in known for name in (facts["name"], *_names(facts))]
    return did_you_mean(" ".join(args.words), names, otherwise="; siglip-jax list shows all")


def _names(facts: dict[str, Any]) -> list[str]:
    """What else it is called."""
    own = [facts["huggingface"]] if "fine_tune_of" in facts else []
    return [*own, *facts["aliases"]]


def _tune_row(facts: dict[str, Any]) -> tuple[str, ...]:
    return (*_row(facts)[:3], facts["profile"])


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    imagenet = facts.get("accuracy", {}).get("imagenet")
    return (
        facts["name"],
        f"{facts['parameters']:,}",
        f"{facts['res']} px" if facts["res"] else "any",
        f"{facts['text_length']} {facts['tokenizer']}",
        "" if imagenet is None else f"{imagenet:.1f}",
    )


def _print_for_a_person(
    lines: list[str], found: Sequence[dict[str, Any]], args: argparse.Namespace
) -> None:
    """Names and licences below each row: beside it they would wrap into it."""
    import textwrap

    console = screen(markup=False, emoji=False)
    head, *rows = lines
    console.print(head, style="bold")
    for line, facts in zip(rows, found, strict=True):
        console.print(line, soft_wrap=True)
        if args.fine_tunes:
            console.print(f"  {facts['licence']}", style="dim", soft_wrap=True)
        if not args.names:
            continue
        # Spaces inside a name are kept together, so that no name is torn in two.
        names = ", ".join(name.replace(" ", "\xa0") for name in _names(facts))
        folded = textwrap.wrap(
            names, max(console.width - 3, 40), break_on_hyphens=False, break_long_words=False
        )
        for part in folded:
            console.print(f"  {part}".replace("\xa0", " "), style="dim", soft_wrap=True)
    if not args.names:
        console.print("What else they are called: siglip-jax list --names", style="dim")
    if not args.fine_tunes:
        console.print("Fine-tunes: siglip-jax list --fine-tunes", style="dim")
        console.print(
            "Bundled: siglip_emoji, a small model of emoji (siglip-jax demo)", style="dim"
        )
