"""The plan of a conversion: a row for each tensor, or, for a person, for each kind of layer."""

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from siglip_jax.cli.columns import columns

if TYPE_CHECKING:
    from siglip_jax.converters import PlanStep

_LAYER = re.compile(r"((?:encoderblock_|layers\.|blocks\.|take layer ))(\d+)")


class _Row(NamedTuple):
    sources: tuple[str, ...]
    source_shapes: tuple[tuple[int, ...], ...]
    operation: str
    target: str
    shape: tuple[int, ...]
    dtype: str


def print_plan(steps: "Sequence[PlanStep]", dropped: dict[str, str]) -> None:
    """Prints to stdout; layers are folded if that is a terminal."""
    if sys.stdout.isatty():
        for row, count in _folded(steps).items():
            print(f"{_sources(row)}")
            times = f"  x{count}" if count > 1 else ""
            print(f"  -> {row.target} {row.shape} {row.dtype}: {row.operation}{times}")
    else:
        head = ("SOURCE", "SHAPE", "OPERATION", "TARGET", "SHAPE", "DTYPE")
        rows = [
            (
                " + ".join(step.sources) or "-",
                " + ".join(map(str, step.source_shapes)) or "-",
                step.operation,
                step.target,
                str(step.shape),
                step.dtype,
            )
            for step in steps
        ]
        print(columns([head, *rows]))
    for name, rule in sorted(dropped.items()):
        print(f"dropped: {name} ({rule})")


def _folded(steps: "Sequence[PlanStep]") -> dict[_Row, int]:
    """Rows that are alike but for the number of the layer, and how many there are of each."""
    counts: dict[_Row, int] = {}
    for step in steps:
        row = _Row(
            # A stack has all layers as its sources: once is enough.
            tuple(dict.fromkeys(map(_any_layer, step.sources))),
            tuple(dict.fromkeys(step.source_shapes)),
            _any_layer(step.operation),
            _any_layer(step.target),
            step.shape,
            step.dtype,
        )
        counts[row] = counts.get(row, 0) + 1
    return counts


def _any_layer(name: str) -> str:
    return _LAYER.sub(r"\1{i}", name)


def _sources(row: _Row) -> str:
    shapes = " ".join(map(str, row.source_shapes))
    return f"{' + '.join(row.sources)} {shapes}" if row.sources else "(nothing)"
