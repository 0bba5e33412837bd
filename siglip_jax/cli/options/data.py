"""The options of all commands that read datasets: their columns, and what may be unreadable."""

import argparse
from collections.abc import Sequence
from typing import Any

from siglip_jax.cli.options.former import add_former

ERROR_SHARE = 0.01
COLUMNS = ("image_column", "text_column", "key_column", "separator")


def share(text: str) -> float:
    """argparse type of a share."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, got {text!r}")
    return value


def _separator(text: str) -> str:
    r"""argparse type of a separator, for which shells need words.

    >>> _separator("tab"), _separator(";")
    ('\t', ';')
    """
    separator = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(separator) != 1:
        raise argparse.ArgumentTypeError(f"expected one character or tab, got {text!r}")
    return separator


def add_data_arguments(parser: Any) -> None:
    """Adds the options of columns, --separator and --max-error-share."""
    for what in ("image", "text", "key"):
        parser.add_argument(
            f"--{what}-column",
            metavar="NAME",
            help=f"column of a table that holds the {what}s (default: one of the usual names)",
        )
    parser.add_argument(
        "--separator",
        metavar="CHAR",
        type=_separator,
        help="between the fields of a .csv or .tsv, such as ';' or tab (default: seen in its "
        "first line)",
    )
    parser.add_argument(
        "--max-error-share",
        type=share,
        metavar="SHARE",
        help="share of items that may be unreadable before the command stops (default: 0.01)",
    )


def refuse_empty(option: str, texts: Sequence[str]) -> None:
    """A ValueError if one of the texts given with an option says nothing."""
    for number, text in enumerate(texts, 1):
        if not text.strip():
            which = f"text {number} of {len(texts)}" if len(texts) > 1 else "the text"
            raise ValueError(f"{option}: {which} is empty")


def add_former_share(parser: Any) -> None:
    """Accepts --error-share, as --max-error-share was called."""
    add_former(parser, "--error-share", "--max-error-share", dest="max_error_share", type=share)


def column_options(args: argparse.Namespace) -> dict[str, str | None]:
    """The columns, as `siglip_jax.data.open_items` takes them."""
    return {name: getattr(args, name) for name in COLUMNS}


def max_error_share(args: argparse.Namespace) -> float:
    return ERROR_SHARE if args.max_error_share is None else args.max_error_share
