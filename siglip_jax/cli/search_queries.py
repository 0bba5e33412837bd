"""The queries of `siglip-jax search`: which words are texts, and which make one search."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from siglip_jax.cli.options.model import QUICK_START_LIMIT, batch_sizes
from siglip_jax.messages import did_you_mean, near_file

if TYPE_CHECKING:
    from siglip_jax.calibration import Calibration
    from siglip_jax.pretrained import Pretrained
    from siglip_jax.search import Embeddings


def check_options(args: argparse.Namespace, queries: list[str]) -> None:
    """Raises a ValueError if options do not go together."""
    if args.duplicates is not None:
        given = [
            name
            for name, value in (
                ("QUERY", queries),
                ("--not", args.unwanted),
                ("--combine", args.combine),
                ("--threshold", args.threshold is not None),
                ("--calibration", args.calibration),
                ("--top", args.top),
            )
            if value
        ]
        if given:
            raise ValueError(
                f"--duplicates compares the rows with each other; leave out {given[0]}"
            )
        return
    if args.unwanted and not queries:
        raise ValueError("--not: there is nothing to search for; give a QUERY before --not")
    both = [query for query in queries if query in args.unwanted]
    if both:
        raise ValueError(f"--not: {both[0]!r} is a QUERY as well; leave it out of one of them")
    if args.combine and len(set(queries)) < 2:
        raise ValueError(f"--combine: expected several QUERYs, got {len(set(queries))}")
    given = "threshold" if args.threshold is not None else "calibration" if args.calibration else ""
    if given and (args.combine or args.unwanted):
        option = "--combine" if args.combine else "--not"
        raise ValueError(
            f"--{given}: a search with {option} ranks by similarities and has no probability; "
            "leave out one of them"
        )
    if not queries and not args.export:
        raise ValueError("there is nothing to search for; give a QUERY or --export")


def check_calibrated(
    args: argparse.Namespace, calibration: "Calibration", embeddings: "Embeddings"
) -> None:
    """Raises a ValueError unless every QUERY is a label whose probabilities a calibration has."""
    if embeddings.what != "images" or args.image:
        raise ValueError(
            f"a calibration is of images with labels; {args.index} holds {embeddings.what}"
            + (f", and {args.image[0]} is an image" if args.image else "")
        )
    for text in args.texts:
        if text not in calibration.labels:
            hint = did_you_mean(text, calibration.labels)
            raise ValueError(
                f"{text!r} is none of the {len(calibration.labels):,} labels that it was fitted "
                f"to{hint}; leave out --calibration, or search for a label"
            )
    if calibration.templates != ("{}",):
        raise ValueError(
            f"it was fitted with the template {calibration.templates[0]!r}, and a QUERY is "
            "searched for as it is; calibrate without --template"
        )
    if calibration.method == "softmax":
        raise ValueError("a softmax compares all labels of an image, and a search has one")


def sorted_queries(queries: list[str]) -> tuple[list[str], list[str]]:
    """Texts, and image files.

    Raises:
      ValueError: if an image file does not exist.
    """
    from siglip_jax.data.specs import IMAGES

    images = [query for query in queries if Path(query).suffix.lower() in IMAGES]
    for image in images:
        if not Path(image).expanduser().exists():
            raise ValueError(f"{image}: no such file{near_file(image)}")
    return [query for query in queries if query not in images], images


class Asked(NamedTuple):
    """A search: its title, what it is of, the words of which it is made."""

    title: str
    about: dict[str, Any]
    wanted: list[str]


def searches(args: argparse.Namespace, queries: list[str]) -> list[Asked]:
    less = "".join(f" - {query}" for query in args.unwanted)
    unwanted = {"not": args.unwanted} if args.unwanted else {}
    if args.combine:
        return [Asked(" + ".join(queries) + less, {"combined": queries} | unwanted, queries)]
    return [
        Asked(query + less, {"text" if query in args.texts else "image": query} | unwanted, [query])
        for query in queries
    ]


def rows_of(args: argparse.Namespace, model: "Pretrained", asked: list[Asked]) -> Any:
    """The embeddings to search for, (n, d)."""
    import numpy as np

    from siglip_jax.search import combined

    known = dict(zip([*args.texts, *args.image], _queries(args, model), strict=True))
    unwanted = [known[query] for query in args.unwanted]
    rows = []
    for each in asked:
        try:
            rows.append(combined([known[query] for query in each.wanted], unwanted))
        except ValueError as error:
            raise ValueError(f"{each.title}: {error}") from error
    return np.concatenate(rows)


def _queries(args: argparse.Namespace, model: "Pretrained") -> Any:
    import numpy as np

    sizes = batch_sizes(args, len(args.image), len(args.texts))
    few = len(args.image) + len(args.texts) <= QUICK_START_LIMIT
    scorer = model.scorer(tokenizer=bool(args.texts), quick_start=few, **sizes)
    parts = []
    if args.texts:
        parts.append(scorer.embed_texts(args.texts))
    if args.image:
        parts.append(scorer.embed_images(args.image))
    return np.concatenate(parts)
