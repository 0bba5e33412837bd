"""Embeddings of whole datasets: for evaluation, and once and for all for a locked image tower.

Locked-image tuning (arXiv 2111.07991; section 4.1 of arXiv 2303.15343) trains a text tower
against an image tower that never changes, so that each picture needs embedding only once.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from siglip_jax.data import Pairs, captions_of, images_in_order
from siglip_jax.messages import reason
from siglip_jax.preprocessing import Profile, Tokenizer
from siglip_jax.programs.sharding import put
from siglip_jax.programs.towers import Program
from siglip_jax.scoring.feed import batches
from siglip_jax.training import hosts
from siglip_jax.weights.load import flatten
from siglip_jax.weights.save import on_host
from siglip_jax.weights.staging import staged

Progress = Callable[[int, int], None]


def embed_images(
    program: Program,
    params: Any,
    pairs: Pairs,
    profile: Profile,
    *,
    batch: int,
    progress: Progress | None = None,
    on_error: Callable[[int, ValueError], None] | None = None,
) -> np.ndarray:
    """(n, d) float32, a row a picture, in order; as the profile prepares them.

    Args:
      on_error: called with the place and the error of a picture that cannot be read,
        whose row means nothing; without it the error is raised.

    Raises:
      ValueError: if a picture cannot be read.
    """
    vision = program.model.config.vision
    patch = vision.patch if program.model.config.naflex else None
    rows = []
    done = 0
    for images, count in images_in_order(pairs, profile, batch, patch=patch, on_error=on_error):
        images = jax.tree.map(lambda x: put(x, program.batch_sharding), images)
        rows.append(np.asarray(program.images(params, images))[:count])
        done += count
        if progress is not None:
            progress(done, len(pairs))
    return np.concatenate(rows)


def embed_captions(
    program: Program, params: Any, pairs: Pairs, tokenizer: Tokenizer, *, batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """(t, d) float32, a row a caption, and (t,) the number of the picture it is for."""
    captions = captions_of(pairs)
    owners = np.repeat(np.arange(len(captions)), [len(each) for each in captions])
    ids = tokenizer.encode([c for each in captions for c in each], warn=False)
    rows = []
    for part, count in batches(ids, batch):
        part = put(part, program.batch_sharding)
        rows.append(np.asarray(program.texts(params, part))[:count])
    return np.concatenate(rows), owners


def cached_image_embeddings(
    folder: Path,
    program: Program,
    params: Any,
    pairs: Pairs,
    profile: Profile,
    *,
    batch: int,
    max_unreadable: float,
    progress: Progress | None = None,
) -> tuple[np.ndarray, list[int]]:
    """`embed_images`, kept in `folder` under a name that says what they are embeddings of.

    Read from there, a page at a time, when the same pictures and the same tower come again.

    Returns:
      The embeddings, and the places of pictures that cannot be read: rows of NaN.

    Raises:
      ValueError: if more than the share `max_unreadable` of the pictures cannot be read.
      OSError: if the disk is full.
    """
    tower = hosts.gathered(params["img"], program.mesh)
    path = folder / f"image_embeddings-{_digest(tower, pairs, profile)}.npy"
    there = path.is_file()
    hosts.meet("looked for embeddings")
    if not there:
        bad: dict[int, ValueError] = {}
        zimg = embed_images(
            program,
            params,
            pairs,
            profile,
            batch=batch,
            progress=progress,
            on_error=bad.__setitem__,
        )
        if len(bad) > max_unreadable * len(pairs):
            raise ValueError(
                f"{len(bad)} of {len(pairs)} pictures ({len(bad) / len(pairs):.1%}) cannot be "
                f"read, more than the share of {max_unreadable:.1%} that may be "
                f"(data.max_unreadable); the first is {bad[min(bad)]}"
            )
        zimg[list(bad)] = np.nan
        if hosts.first():
            try:
                with staged(path) as temporary, temporary.open("wb") as file:
                    np.save(file, zimg)
            except OSError as error:
                raise OSError(f"{path} could not be written: {reason(error)}") from error
        hosts.meet("kept embeddings")
    cache = np.load(path, mmap_mode="r")
    return cache, np.flatnonzero(np.isnan(cache[:, 0])).tolist()


def _digest(tower: Any, pairs: Pairs, profile: Profile) -> str:
    digest = hashlib.sha256(repr((pairs.identity(), profile.image)).encode())
    for name, leaf in sorted(flatten(tower).items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(on_host(leaf)).tobytes())
    return digest.hexdigest()[:16]
