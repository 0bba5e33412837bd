"""What `siglip-jax search` prints and draws: hits of queries, or groups of near-duplicates."""

import argparse
import base64
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from siglip_jax.cli.output import aligned, print_json, printable

if TYPE_CHECKING:
    from siglip_jax.calibration import Calibration
    from siglip_jax.search import Embeddings, Hit

_GROUPS, _MEMBERS = 100, 12  # on a sheet of duplicates


class Result(NamedTuple):
    """What was found under a title: `about` says it to programs, `plain` what each hit is."""

    title: str
    about: dict[str, Any]
    hits: "list[Hit]"
    plain: list[dict[str, Any]]


def plain_hit(
    hit: "Hit", embeddings: "Embeddings", probability: bool, specs: Sequence[str]
) -> dict[str, Any]:
    """A hit in plain JSON types; a probability is of an image with a text."""
    import numpy as np

    from siglip_jax.scoring.scores import sigmoid
    from siglip_jax.search import location

    manifest = embeddings.manifests[hit.row.folder]
    made: dict[str, Any] = {"key": hit.row.key}
    if hit.row.text is not None:
        made["text"] = hit.row.text
    if len(embeddings.folders) > 1:
        made["index"] = str(embeddings.folders[hit.row.folder])
    made["similarity"] = hit.similarity
    if probability:
        # A model that embeds the query as well as the index has both towers.
        t, b = embeddings.manifests[0].t, embeddings.manifests[0].b
        assert t is not None and b is not None
        logit = float(np.exp(t) * hit.similarity + b)
        made |= {"logit": logit, "probability": float(sigmoid(np.float32(logit)))}
    origin = {"specs": list(specs)} if specs else manifest.source.get("origin")
    where = location(hit.row.key, origin)
    if where is not None:
        made |= {name: value for name, value in where._asdict().items() if value is not None}
    return made


def add_kept(embeddings: "Embeddings", results: Sequence[Result]) -> None:
    """Gives hits what the jobs kept of their sources, as `kept`."""
    if not any(manifest.job.get("keep") for manifest in embeddings.manifests):
        return
    both = [pair for result in results for pair in zip(result.hits, result.plain, strict=True)]
    for (_, plain), kept in zip(both, embeddings.kept([hit.place for hit, _ in both]), strict=True):
        plain["kept"] = {name: _json(value) for name, value in kept.items()}


def _json(value: Any) -> Any:
    """A value of any column in types of JSON: bytes in base64, dates as they are written."""
    if isinstance(value, dict):
        return {str(name): _json(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_json(own) for own in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def calibrate_hits(
    calibration: "Calibration", label: str, hits: list[dict[str, Any]]
) -> float | None:
    """Gives hits the calibrated probabilities of a label; its threshold, if there are any."""
    import numpy as np

    column = calibration.labels.index(label)
    logits = np.array([[hit["logit"]] for hit in hits]).reshape(-1, 1)
    columns = np.full(logits.shape, column)
    for hit, value in zip(hits, calibration.probabilities(logits, columns)[:, 0], strict=True):
        hit["probability"] = float(value)
    return None if calibration.thresholds is None else float(calibration.thresholds[column])


def score(hit: dict[str, Any]) -> str:
    """A similarity and a probability as people read them."""
    from siglip_jax.cli.commands.score import percent

    probability = hit.get("probability")
    spoken = f"  {percent(probability)}" if probability is not None else ""
    return f"{hit['similarity']:.4f}{spoken}"


def print_results(args: argparse.Namespace, about: dict[str, Any], results: list[Result]) -> None:
    """Hits of queries: a table for a person, lines into a pipe, or JSON."""
    if args.json:
        queries = [result.about | {"hits": result.plain} for result in results]
        print_json(about | {"queries": queries})
        return
    if not sys.stdout.isatty():
        # A tab or a line break inside a key is quoted.
        lines = csv.writer(sys.stdout, dialect="excel-tab", lineterminator="\n")
        lines.writerow(["query", "rank", "key", "similarity", "probability"])
        for result in results:
            for rank, hit in enumerate(result.plain, 1):
                probability = f"{hit['probability']:.6g}" if "probability" in hit else ""
                row = [result.title, rank, hit["key"], f"{hit['similarity']:.6g}", probability]
                lines.writerow(row)
        return
    for number, result in enumerate(results):
        print(("\n" if number else "") + printable(result.title))
        rows = [
            (f"{rank:>4}", score(hit), hit["key"], hit.get("text", ""))
            for rank, hit in enumerate(result.plain, 1)
        ]
        print(aligned(rows, "rrll") if rows else "  nothing")


def print_groups(args: argparse.Namespace, about: dict[str, Any], groups: list[Result]) -> None:
    """Groups of near-duplicates: a table for a person, lines into a pipe, or JSON."""
    if args.json:
        print_json(about | {"groups": [group.plain for group in groups]})
        return
    if not sys.stdout.isatty():
        lines = csv.writer(sys.stdout, dialect="excel-tab", lineterminator="\n")
        lines.writerow(["group", "key", "similarity", "file"])
        for number, group in enumerate(groups, 1):
            for hit in group.plain:
                row = [number, hit["key"], f"{hit['similarity']:.6g}", hit.get("file", "")]
                lines.writerow(row)
        return
    for number, group in enumerate(groups):
        print(("\n" if number else "") + group.title)
        rows = [("  ", score(hit), hit["key"], hit.get("text", "")) for hit in group.plain]
        print(aligned(rows, "lrll"))


def write_results_sheet(
    args: argparse.Namespace, embeddings: "Embeddings", results: list[Result]
) -> None:
    """The sheet that --sheet asks for; what it leaves out is said."""
    from siglip_jax.search.pictures import pictures_of
    from siglip_jax.search.sheet import Shown, write_sheet

    rows = list(dict.fromkeys(hit.row for result in results for hit in result.hits))
    pictures = pictures_of(embeddings, rows, args.images) if embeddings.what == "images" else {}
    sheet = []
    for result in results:
        shown = []
        for hit, plain in zip(result.hits, result.plain, strict=True):
            image = pictures.get(hit.row)
            file = plain.get("file") or (image if isinstance(image, str) else None)
            shown.append(Shown(hit.row.key, score(plain), image, hit.row.text, file))
        sheet.append((result.title, shown))
    write_sheet(Path(args.sheet).expanduser(), sheet)
    if embeddings.what == "images" and len(pictures) < len(rows):
        print(
            f"siglip-jax: {len(rows) - len(pictures):,} of {len(rows):,} images were not found "
            "again; --images says where they are",
            file=sys.stderr,
        )


def write_groups_sheet(
    args: argparse.Namespace, embeddings: "Embeddings", groups: list[Result]
) -> None:
    """As many groups, and of each as many rows, as a person looks at."""
    shown = [
        group._replace(hits=group.hits[:_MEMBERS], plain=group.plain[:_MEMBERS])
        for group in groups[:_GROUPS]
    ]
    left = sum(len(g.hits) for g in groups) - sum(len(g.hits) for g in shown)
    write_results_sheet(args, embeddings, shown)
    if left:
        print(
            f"siglip-jax: {args.sheet} shows {_MEMBERS} of each of the {_GROUPS} largest groups; "
            f"{left:,} more are in the table",
            file=sys.stderr,
        )
