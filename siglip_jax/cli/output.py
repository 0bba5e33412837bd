"""What commands print: rows in aligned columns, or JSON for programs."""

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from typing import Any


def add_json_argument(parser: argparse.ArgumentParser, what: str = "the result") -> None:
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON, for programs")


def print_json(value: Any) -> None:
    """`value` on stdout, readable where stdout takes Unicode and escaped where it does not.

    JSON has no NaN and no infinity: they are null.
    """
    unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    print(json.dumps(finite(value), indent=1, ensure_ascii=not unicode, allow_nan=False))


def finite(value: Any) -> Any:
    """`value` of plain JSON types, with None for numbers that JSON does not have.

    >>> finite({"loss": float("nan"), "steps": [1, 2.5]})
    {'loss': None, 'steps': [1, 2.5]}
    """
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def printable(text: str) -> str:
    r"""`text` for a terminal: what would command it, as names of files can, is written as `\x`.

    >>> printable("a\x1b]0;title\x07.jpg"), printable("🧛🏻 café.jpg")
    ('a\\x1b]0;title\\x07.jpg', '🧛🏻 café.jpg')
    """
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


# Control characters, and those that turn the direction of writing.
_COMMANDS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def screen(**options: Any) -> Any:
    """rich's console on stdout; if the reader goes away, the error is Python's own."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:  # rich would end the process with code 1
            raise BrokenPipeError

    return Screen(highlight=False, **options)


def aligned(rows: Sequence[Sequence[str]], right: str = "", indent: str = "") -> str:
    """Lines with columns two spaces apart; `right` has an 'r' for each one to flush right.

    >>> print(aligned([("NAME", "SIZE"), ("a", "10")], "lr"))
    NAME  SIZE
    a       10
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    flush = right.ljust(len(widths), "l")
    return "\n".join(
        indent
        + "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(row, widths, flush, strict=True)
        ).rstrip()
        for row in rows
    )
