"""Embedding for a command: progress, and images that cannot be read reported, not fatal."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.activity import activity
from siglip_jax.cli.output import printable
from siglip_jax.data.item import Item
from siglip_jax.messages import near_file
from siglip_jax.scoring import Scorer
from siglip_jax.scoring.preparation import warn_of_rotation
from siglip_jax.scoring.rows import NOT_FINITE, Prepared


def embed_images(
    scorer: Scorer, items: Iterable[Item], total: int, **options: Any
) -> tuple[np.ndarray, np.ndarray, list[dict[str, str]]]:
    """Embeddings (n, d) of the images that can be read, their indices (n,), the others' errors.

    Each error is also a line on stderr as soon as it happens. `options` as for
    `Scorer.pipeline`: with `layer` the rows are patches (n, patches, d), with `classes` logits
    of the model's classifier (n, classes).
    """
    errors: list[dict[str, str]] = []
    turned = 0

    def complain(item: Prepared) -> None:
        error = item.error or ""
        message = error if item.key in error else f"{item.key}: {error}"
        errors.append({"image": item.key, "error": message})
        print(f"siglip-jax: error: {printable(message)}", file=sys.stderr)

    with activity("embedding images", total=total, unit="images") as step:

        def seen(item: Prepared) -> None:
            nonlocal turned
            turned += item.rotated
            if item.error is not None:
                step.advance()
                complain(item)

        z, rows = scorer.embed_items(items, seen, returned=step.advance, total=total, **options)
    warn_of_rotation(turned)
    for item in rows.items:
        if item.error == NOT_FINITE:
            complain(item)
    return z, rows.good, errors


def embed_files(
    scorer: Scorer, files: list[str], **options: Any
) -> tuple[np.ndarray, list[str], list[dict[str, str]]]:
    """`embed_images` of image files, with the names of those that could be read."""

    def items() -> Iterator[Item]:
        for file in files:
            if Path(file).exists() or not (near := near_file(file)):
                yield Item(file, file)
            else:
                yield Item(file, error=f"{file}: cannot be read: No such file or directory{near}")

    z, good, errors = embed_images(scorer, items(), len(files), **options)
    return z, [files[index] for index in good], errors


def embed_texts(scorer: Scorer, texts: list[str]) -> np.ndarray:
    """Embeddings (n, d) of strings."""
    # All at once, so that there is one warning of texts that are too long.
    assert scorer.tokenizer is not None  # commands that embed texts ask for it
    ids = scorer.tokenizer.encode(texts)
    with activity("embedding texts", total=len(ids), unit="texts") as step:
        return scorer.embed_texts(ids, returned=step.advance)
