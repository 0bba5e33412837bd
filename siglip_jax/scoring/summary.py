"""What a printed model says: a few lines, or a table in a notebook."""

import html
from collections.abc import Sequence
from typing import NamedTuple

from siglip_jax.config import Siglip


class Summary(NamedTuple):
    """A title and a few facts, each a name and what it is.

    >>> summary = Summary("Scorer on 1 cpu", [("profile", "big_vision"), ("tokenizer", "none")])
    >>> print(summary.text())
    Scorer on 1 cpu
      profile: big_vision
      tokenizer: none
    >>> summary.html()[:45]
    '<p>Scorer on 1 cpu</p><table><tr><td>profile<'
    """

    title: str
    facts: Sequence[tuple[str, object]]

    def text(self) -> str:
        return "\n".join([self.title, *(f"  {name}: {value}" for name, value in self.facts)])

    def html(self) -> str:
        cells = ((name, html.escape(str(value))) for name, value in self.facts)
        rows = (f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in cells)
        return f"<p>{html.escape(self.title)}</p><table>{''.join(rows)}</table>"


def towers(config: Siglip) -> list[tuple[str, object]]:
    """The towers that a model has, by their names."""
    both = (("image", config.vision), ("text", config.text))
    return [(name, tower) for name, tower in both if tower is not None]
