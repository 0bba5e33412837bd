"""Embedding a dataset for a command: progress, and bad pictures reported, not fatal."""

import sys
from collections.abc import Iterator

import numpy as np

from siglip_jax.cli.progress import Bar
from siglip_jax.data import Pairs
from siglip_jax.scoring import Scorer

_TEXTS = 1024  # between two steps of the progress bar


def embed_pictures(
    scorer: Scorer, pairs: Pairs
) -> tuple[np.ndarray, list[int], list[dict[str, str]]]:
    """Embeddings of the pictures that can be read, their indices, errors of the others."""
    keys: list[str] = []
    errors: dict[int, dict[str, str]] = {}

    def report(index: int, message: str) -> None:
        # A picture of which not even the bytes could be had is reported before it is decoded.
        if index not in errors:
            errors[index] = {"image": keys[index], "error": message}
            print(f"siglip-jax: error: {message}", file=sys.stderr)

    with Bar("embedding pictures", total=len(pairs)) as bar:

        def pictures() -> Iterator[bytes]:
            for index in range(len(pairs)):
                try:
                    key, image, _ = pairs[index]
                    keys.append(key)
                except ValueError as error:
                    keys.append(str(index))
                    report(index, str(error))
                    image = b""
                yield image
                bar.advance()

        z = scorer.embed_images(
            pictures(), on_error=lambda index, error: report(index, f"{keys[index]}: {error}")
        )
    good = [index for index in range(len(pairs)) if index not in errors]
    return z[good], good, [errors[index] for index in sorted(errors)]


def embed_texts(scorer: Scorer, texts: list[str]) -> np.ndarray:
    """Embeddings of strings, with a progress bar."""
    # All at once, so that there is one warning of texts that are too long.
    ids = scorer.tokenizer.encode(texts)
    rows = []
    with Bar("embedding texts", total=len(ids), unit="texts") as bar:
        for start in range(0, len(ids), _TEXTS):
            rows.append(scorer.embed_texts(ids[start : start + _TEXTS]))
            bar.update(start + len(rows[-1]), len(ids))
    return np.concatenate(rows)
