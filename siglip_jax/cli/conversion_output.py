"""A conversion for a person: its plan before, its certificate after."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from siglip_jax.cli.output import aligned

if TYPE_CHECKING:
    from siglip_jax.converters import PlanStep

_LAYER = re.compile(r"((?:encoderblock_|layers\.|blocks\.|take layer ))(\d+)")
_WORDS = {"image": "image embeddings", "text": "text embeddings", "logits": "logits"}


def print_certificate(certificate: dict[str, Any], path: Path, destination: Path) -> None:
    """Prints what was done to stdout; `path` is where the certificate lies."""
    target, counts = certificate["target"], certificate["counts"]
    files = len(target["files"])
    rows = [
        ("written", f"{destination} ({target['format']}, {files} file{'s' * (files > 1)})"),
        ("parameters", f"{certificate['parameters']:,}"),
        (
            "tensors",
            f"{counts['used']} of {counts['stored']} used, {counts['dropped']} dropped; "
            f"{counts['written']} written, {counts['added']} added",
        ),
        ("round trip", _round_trip(certificate)),
        ("certificate", str(path)),
    ]
    comparison = certificate.get("comparison")
    if comparison is not None:
        rows += _comparison(comparison)
    rows.append(("certified", certificate["certifies"]))
    rows += [("note", note) for note in certificate["notes"]]
    print(aligned(rows))
    if comparison is not None and "layers" in comparison:
        print()
        print_layers(comparison["layers"])


def _round_trip(certificate: dict[str, Any]) -> str:
    found = certificate["round_trip"]
    if found["bit_equal"]:
        return "read back: every bit as in the source"
    if not found["read_back"]:
        return "not read back"
    dtypes = sorted({row["dtype"] for row in certificate["tensors"]["used"]})
    return f"read back: every bit as written, the source's numbers as {' and '.join(dtypes)}"


def _comparison(comparison: dict[str, Any]) -> list[tuple[str, str]]:
    if "error" in comparison:
        return [("compared", comparison["error"])]
    libraries = ", ".join(f"{name} {version}" for name, version in comparison["libraries"].items())
    largest = ", ".join(
        f"{_WORDS[name]} {value:.1e}" for name, value in comparison["largest_difference"].items()
    )
    of = comparison["largest_logit"]
    return [
        ("compared", f"with {libraries}: {comparison['inputs']}, as the same arrays"),
        (
            "difference",
            f"at most {largest}" + (f" (of up to {of:.1f})" if of is not None else "") + ": "
            f"{'rounding' if comparison['agrees'] else 'MORE THAN ROUNDING'}",
        ),
        *_processor(comparison.get("processor")),
    ]


def _processor(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What the folder's own processor does, a row for each thing to know."""
    if found is None:
        return []
    if "error" in found:
        return [("processor", found["error"])]
    said = [f"{found['class']}: {found['inputs']}"]
    if (pixels := found["pixels"]) is not None:
        said.append(f"pixels at most {pixels['largest_difference']:.2g} grey levels apart")
    rows = [("processor", ", ".join(said))]
    for key, what in (("other_ids", "OTHER IDS"), ("altered", "rewritten")):
        if texts := found[key]:
            shown = ", ".join(repr(text[:30]) for text in texts[:3])
            more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
            rows.append((what, f"{shown}{more}"))
    return rows


def print_layers(layers: list[dict[str, Any]]) -> None:
    """Prints the differences of the blocks' outputs."""
    head = ("TOWER", "BLOCK", "LARGEST DIFFERENCE", "LARGEST VALUE")
    rows = [
        (
            row["tower"],
            str(row["layer"]),
            f"{row['largest_difference']:.1e}",
            f"{row['largest_value']:.3g}",
        )
        for row in layers
    ]
    print(aligned([head, *rows], "lrrr"))


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
        print(aligned([head, *rows]))
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
