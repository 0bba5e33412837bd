"""A certificate as a few lines for a person."""

from pathlib import Path
from typing import Any

from siglip_jax.cli.columns import columns

_WORDS = {"image": "image embeddings", "text": "text embeddings", "logits": "logits"}


def print_certificate(certificate: dict[str, Any], path: Path) -> None:
    """Prints what was done to stdout; `path` is where the certificate lies."""
    target, counts = certificate["target"], certificate["counts"]
    files = len(target["files"])
    rows = [
        ("written", f"{target['path']} ({target['format']}, {files} file{'s' * (files > 1)})"),
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
    rows += [("note", note) for note in certificate["notes"]]
    print(columns(rows))
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
        ("compared", f"with {libraries}: {comparison['inputs']}"),
        (
            "difference",
            f"at most {largest}" + (f" (of up to {of:.1f})" if of is not None else "") + ": "
            f"{'rounding' if comparison['agrees'] else 'MORE THAN ROUNDING'}",
        ),
    ]


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
    print(columns([head, *rows], "lrrr"))
