"""Rows of text in aligned columns."""

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], right: str = "", indent: str = "") -> str:
    """Lines with columns two spaces apart; `right` has an 'r' for each one to flush right.

    >>> print(columns([("NAME", "SIZE"), ("a", "10")], "lr"))
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
