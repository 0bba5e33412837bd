"""Embedding picture files for a command: progress, and bad ones reported, not fatal."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from siglip_jax.cli.progress import Bar
from siglip_jax.messages import near_file
from siglip_jax.scoring import Scorer


def embed_files(scorer: Scorer, files: list[str]) -> tuple[np.ndarray, list[str], dict[str, str]]:
    """Embeddings of the files that could be read, their names, and the errors of the others.

    Each error is also a line on stderr as soon as it happens.
    """
    errors: dict[str, str] = {}

    def report(index: int, error: ValueError) -> None:
        file = files[index]
        missing = near_file(file) if not Path(file).exists() else ""
        errors[file] = f"{error}{missing}"
        print(f"siglip-jax: error: {errors[file]}", file=sys.stderr)

    with Bar("embedding", total=len(files)) as bar:

        def counted() -> Iterator[str]:
            for file in files:
                yield file
                bar.advance()

        z = scorer.embed_images(counted(), on_error=report)
    bad = np.array([file in errors for file in files])
    return z[~bad], [file for file in files if file not in errors], errors
