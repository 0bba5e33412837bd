"""The help of a command, wrapped to the terminal but for what is laid out by hand."""

import argparse
import itertools
import textwrap

# Longer lines are hard to read, however wide a terminal is.
WIDEST = 88


class ProseFormatter(argparse.HelpFormatter):
    r"""Wraps prose; lines that are indented, which are commands and tables, stay as they are.

    >>> parser = argparse.ArgumentParser(
    ...     prog="p", usage="p", description="Two\nlines.\n\n  p --out a  b", add_help=False,
    ...     formatter_class=ProseFormatter)
    >>> parser.print_help()
    usage: p
    <BLANKLINE>
    Two lines.
    <BLANKLINE>
      p --out a  b
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        def stays(line: str) -> bool:
            return not line.strip() or line.startswith(" ")

        # A hyphen may be of an option.
        wrapper = textwrap.TextWrapper(min(width, WIDEST), break_on_hyphens=False)
        lines = []
        for as_it_is, group in itertools.groupby(text.strip().splitlines(), stays):
            block = list(group)
            lines += block if as_it_is else wrapper.wrap(" ".join(block))
        return "\n".join(indent + line for line in lines)
