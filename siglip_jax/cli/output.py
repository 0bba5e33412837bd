"""What commands print: rows in aligned columns, or JSON for programs."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any


def add_json_argument(parser: argparse.ArgumentParser, what: str = "the result") -> None:
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON, for programs")


def print_json(value: Any) -> None:
    """`value` on stdout, readable where stdout takes Unicode and escaped where it does not."""
    unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    print(json.dumps(value, indent=1, ensure_ascii=not unicode))


def aligned(rows: Sequence[Sequence[str]], right: str = "", indent: str = "") -> str:
    """Lines with columns two spaces apart; `right` has an 'r' for each one to flush right.

    >>> print(aligned([("NAME", "SIZE"), ("a", "10")], "lr"))
    NAME  SIZE
    a       10
    """
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
