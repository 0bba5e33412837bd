"""Embeddings of whole datasets: for evaluation, and once and for all for a locked image tower.

Locked-image tuning (arXiv 2111.07991; section 4.1 of arXiv 2303.15343) trains a text tower
against an image tower that never changes, so that each picture needs embedding only once.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.data import ErrorShare, Pairs, captions_of, items_of
from siglip_jax.data.item import Item
from siglip_jax.preprocessing import Profile, Tokenizer
from siglip_jax.programs.towers import Program
from siglip_jax.scoring.batches import batches
from siglip_jax.scoring.pipeline import Pipeline
from siglip_jax.scoring.preparation import Preparer
from siglip_jax.scoring.rows import Prepared, Rows
from siglip_jax.training import hosts
from siglip_jax.training.embeddings_file import EmbeddingsFile
from siglip_jax.weights.save import on_host
from siglip_jax.weights.tree import flatten


def embed_images(
    program: Program,
    params: Any,
    pairs: Pairs,
    profile: Profile,
    *,
    batch: int,
) -> np.ndarray:
    """(n, d) float32, a row an image, in order; as the profile prepares them.

    Raises:
      ValueError: if an image cannot be read.
    """

    def seen(item: Prepared) -> None:
        if item.error is not None:
            raise _unreadable(item)

    rows = Rows()
    _embed(program, params, items_of(pairs), profile, rows, seen, batch=batch)
    return rows.embeddings(program.model.config.embed_dim)[0]


def _embed(
    program: Program,
    params: Any,
    items: Iterator[Item],
    profile: Profile,
    rows: Rows,
    seen: Callable[[Prepared], None],
    *,
    batch: int,
    processes: int = 0,
) -> None:
    prepare = _Steady("images", program.model.config, profile, processes=processes > 0)
    threads = processes or None  # each waits for its process
    with Pipeline(
        program, params, "images", batch_size=batch, prepare=prepare, threads=threads
    ) as pipeline:
        pipeline.embed(pipeline.read(items), rows, seen)
        pipeline.drain()


class _Steady(Preparer):
    """Gives an item in error a black image in its place.

    Several processes must compute the same batches, though a file may be readable for one
    of them alone.
    """

    def __call__(self, item: Item) -> Prepared:
        done = super().__call__(item)
        if done.error is not None:
            done = done._replace(example=self.image(np.zeros((1, 1, 3), np.uint8)))
        return done


def _unreadable(item: Prepared) -> ValueError:
    error = item.error or ""
    return ValueError(error if item.key in error else f"{item.key}: {error}")


def embed_captions(
    program: Program, params: Any, pairs: Pairs, tokenizer: Tokenizer, *, batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """(t, d) float32, a row a caption, and (t,) the index of the image it is for."""
    captions = captions_of(pairs)
    owners = np.repeat(np.arange(len(captions)), [len(each) for each in captions])
    ids = tokenizer.encode([c for each in captions for c in each], warn=False)
    rows = Rows()
    with Pipeline(program, params, "texts", batch_size=batch) as pipeline:
        for part, count in batches(ids, batch):
            pipeline.submit(rows, part, count)
        pipeline.drain()
    return rows.embeddings(program.model.config.embed_dim)[0], owners


def cached_image_embeddings(
    folder: Path,
    program: Program,
    params: Any,
    pairs: Pairs,
    profile: Profile,
    *,
    batch: int,
    max_error_share: float,
    processes: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, list[int]]:
    """Embeddings kept in `folder` under a name that says what they are embeddings of.

    Rows are written as they are computed: a process that is killed goes on behind the last
    of them. Read a page at a time when the same images and the same tower come again.

    Args:
      processes: that decode; 0 for threads.

    Returns:
      The embeddings (n, d), and the indices of images that cannot be read: rows of NaN.

    Raises:
      ValueError: if more than the share `max_error_share` of the images cannot be read.
      OSError: if the disk is full.
    """
    tower = hosts.gathered(params["img"], program.mesh)
    path = folder / f"image_embeddings-{_digest(tower, pairs, profile)}.npy"
    shape = len(pairs), program.model.config.embed_dim
    cache = EmbeddingsFile(path, shape, writes=hosts.first())
    first = cache.rows
    hosts.meet("looked for embeddings")  # before the first process writes more of them
    if first < len(pairs):

        def filled(z: tuple[np.ndarray, ...]) -> None:
            cache.append(z[0])
            if progress is not None:
                progress(cache.rows, len(pairs))

        def seen(item: Prepared) -> None:
            cache.add(None if item.error is None else str(_unreadable(item)))

        with cache:
            rows = Rows(filled=filled)
            items, sizes = items_of(pairs, first), {"batch": batch, "processes": processes}
            _embed(program, params, items, profile, rows, seen, **sizes)
            bad = hosts.agreed(cache.bad)
            share = ErrorShare(max_error_share, bad, first=cache.reason, what="images")
            if share.exceeded(len(pairs)):
                cache.discard()
                raise share.error(len(pairs))
            cache.finish()
        hosts.meet("kept embeddings")
    kept = np.load(path, mmap_mode="r")
    return kept, np.flatnonzero(np.isnan(kept[:, 0])).tolist()


def _digest(tower: Any, pairs: Pairs, profile: Profile) -> str:
    digest = hashlib.sha256(repr((pairs.identity(), profile.image)).encode())
    for name, leaf in sorted(flatten(tower).items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(on_host(leaf)).tobytes())
    return digest.hexdigest()[:16]
