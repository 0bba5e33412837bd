"""Embedding picture files for a command: progress, and bad ones reported, not fatal."""

import sys
from pathlib import Path

import numpy as np

from siglip_jax.cli.picture_files import near_files
from siglip_jax.cli.progress import Bar
from siglip_jax.scoring import Scorer


def embed_files(scorer: Scorer, files: list[str]) -> tuple[np.ndarray, list[str], dict[str, str]]:
    """Embeddings of the files that could be read, their names, and the errors of the others.

    Raises:
      ValueError: if there is only one file and it cannot be read.
    """
    errors: dict[str, str] = {}

    def report(index: int, error: ValueError) -> None:
        file = files[index]
        missing = near_files(file) if not Path(file).exists() else ""
        errors[file] = f"{error}{missing}"
        if len(files) > 1:
            print(f"siglip-jax: error: {errors[file]}", file=sys.stderr)

    with Bar("embedding", total=len(files)) as bar:

        def counted():
            for file in files:
                yield file
                bar.advance()

        z = scorer.embed_images(counted(), on_error=report)
    if errors and len(files) == 1:
        raise ValueError(errors[files[0]])
    bad = np.array([file in errors for file in files])
    return z[~bad], [file for file in files if file not in errors], errors
