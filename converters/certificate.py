"""The certificate of a conversion: a JSON file that says what was done, and proves it.

`conversion.json` in a folder that was written, `NAME.conversion.json` beside a file.
`convert` writes it together with its output; what is found out afterwards, such as a
comparison with the other library, is added to it. It names files, and never where they lie:
a folder is uploaded with its certificate.
"""

import datetime
import importlib.metadata
import json
from pathlib import Path
from typing import Any, cast

from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.config import to_dict
from siglip_jax.weights.staging import staged

from .formats import FORMATS
from .record import Record

NAME = "conversion.json"
_DEPTH = 3  # what lies deeper is on one line, so that each tensor has its own


def certificate_path(destination: Path, to: str) -> Path:
    """Where the certificate of `destination`, written in format `to`, lies.

    >>> certificate_path(Path("a/b.npz"), "npz").as_posix()
    'a/b.npz.conversion.json'
    >>> certificate_path(Path("a/b"), "timm").as_posix()
    'a/b/conversion.json'
    """
    if FORMATS[to].config is None:
        return certificate_beside(destination)
    return destination / NAME


def certificate_beside(destination: Path) -> Path:
    """Where it lies if `destination` is no folder of files."""
    return destination.with_name(f"{destination.name}.{NAME}")


def make_certificate(record: Record) -> dict[str, Any]:
    """What a certificate says, as plain JSON types.

    `tensors` accounts for each one: `used` has a row for each that was written,
    `dropped` the rule by which a stored one was left out, `added` what only the target
    has. `round_trip.bit_equal` says that what was written was read back and is, bit for
    bit, what the source holds. `certifies` says in words what all of that proves.
    `preprocessing` lists the settings of the source that are not those of the released
    weights, as they were written, and the names of those that are lost.
    """
    used = [
        {
            "target": step.target,
            "shape": list(step.shape),
            "dtype": step.dtype,
            "operation": step.operation,
            "sources": dict(zip(step.sources, map(list, step.source_shapes), strict=True)),
        }
        for step in record.plan
    ]
    stored = {name for step in record.plan for name in step.sources}
    whole = [c.name for c in CHECKPOINTS if record.tower is None and c.config == record.config]
    made = {
        "tool": f"siglip-jax {importlib.metadata.version('siglip-jax')}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": record.source | {"path": Path(record.source["path"]).name},
        "target": record.target | {"path": Path(record.target["path"]).name},
        "architecture": to_dict(record.config),
        "released_as": whole[0] if whole else None,
        "tower": record.tower,
        "parameters": record.parameters,
        "round_trip": {
            "bit_equal": record.verified and record.exact,
            "read_back": record.verified,
            "dtype_kept": record.exact,
            "weights_sha256": record.weights_sha256,
        },
        "counts": {
            "stored": len(stored | set(record.dropped)),
            "used": len(stored),
            "dropped": len(record.dropped),
            "written": len(used),
            "added": len(record.added),
        },
        "preprocessing": record.preprocessing,
        "notes": [without_folders(note, *_places(record)) for note in record.notes],
        "tensors": {"used": used, "dropped": record.dropped, "added": record.added},
        "sha256": record.tensors,
    }
    return with_findings(made, {})


def _places(record: Record) -> tuple[Path, Path]:
    return Path(record.source["path"]), Path(record.target["path"])


def without_folders(text: str, *places: Path) -> str:
    """`text` with files and folders called by their names alone.

    >>> without_folders("/data/hf/config.json is odd", Path("/data/hf"))
    'hf/config.json is odd'
    """
    for place in places:
        for path in (place.resolve(), place.absolute(), place):
            text = text.replace(f"{path}", path.name)
    return text


def with_findings(certificate: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A certificate with what was found out by running what was written, and what it proves."""
    notes = [*certificate["notes"], *found.get("notes", ())]
    made = {**certificate, **found, "notes": notes}
    made.pop("certifies", None)
    at = list(made).index("round_trip")
    items = list(made.items())
    return dict([*items[:at], ("certifies", _certifies(made)), *items[at:]])


def _certifies(certificate: dict[str, Any]) -> str:
    """In words; the strongest that holds, and no more."""
    to, tensors = certificate["target"]["format"], certificate["round_trip"]
    if tensors["bit_equal"]:
        proved = "tensors only: every bit is as in the source"
    elif tensors["read_back"]:
        proved = "tensors only: every number is as written, in another dtype than the source's"
    else:
        proved = "nothing: what was written was not read back"
    comparison = certificate.get("comparison")
    if FORMATS[to].steps is None:
        return proved
    if comparison is None:
        return f"{proved}; {to} was not run"
    if not comparison["agrees"]:
        return f"{proved}; {to} computes other numbers with them, or none"
    gelu = " and ".join(comparison.get("exact_gelu", ()))
    ran = f"tensors and arithmetic only: {to} computes the same from the same arrays"
    if gelu:
        ran += f", with the exact GELU in the {gelu} tower"
    processor = comparison.get("processor")
    if processor is None:
        return f"{ran}; its own processor was not run"
    if "error" in processor:
        return f"{ran}; its own processor does not run"
    largest = processor["largest_difference"]
    what = "scores" if "logits" in largest else "embeddings"
    apart = ", ".join(f"{name} {value:.1e}" for name, value in largest.items())
    through = f"{processor['inputs']} through its own processor ({processor['class']})"
    here = FORMATS[to].profile
    beside = f" as here with the profile {here}" if processor["profile"] == here else ""
    if not processor["agrees"]:
        than = beside.removeprefix(" as ") or "here"
        return f"{ran}; other {what} there than {than}: {through}, {apart} apart"
    but = _rounded(processor["pixels"])
    if altered := processor["altered"]:
        but += f", but for {len(altered)} of the texts, which {to} rewrites"
    if gelu:
        return f"{ran}; {what} there differ by that alone{but}: {through}, {apart} apart"
    return f"same {what} there{beside}{but}: {through}, {apart} apart"


def _rounded(pixels: dict[str, float] | None) -> str:
    if pixels is None or pixels["largest_difference"] < 0.01:
        return ""
    return f", but for {pixels['share']:.1%} of pixels that round to the next grey level"


def write_certificate(path: Path, certificate: dict[str, Any]) -> None:
    """Writes a certificate, or replaces it, whole or not at all."""
    with staged(path) as partial:
        partial.write_text(_lines(certificate, 0) + "\n", "utf-8")


def _lines(value: Any, depth: int) -> str:
    if depth == _DEPTH or not value or not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    inner, outer = "  " * (depth + 1), "  " * depth
    if isinstance(value, dict):
        entries = cast(dict[str, Any], value)
        items = [f"{json.dumps(key)}: {_lines(item, depth + 1)}" for key, item in entries.items()]
        first, last = "{}"
    else:
        items = [_lines(item, depth + 1) for item in cast(list[Any], value)]
        first, last = "[]"
    return f"{first}\n{inner}" + f",\n{inner}".join(items) + f"\n{outer}{last}"
