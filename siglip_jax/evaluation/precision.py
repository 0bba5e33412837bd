"""Classification where an image has several labels: how early the right images come.

The definition is CLIP_benchmark's (`metrics/zeroshot_classification.py`, at 48de38c, after
torchnet's meter), which is that of VOC 2007 from 2010 on, without interpolation: of each class
all images are put in order of their dot product with it, and the precisions at the places of
its own images are averaged.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float64, Int32

from siglip_jax.evaluation.classification import check_embeddings, checked_labels
from siglip_jax.programs.sharding import make_mesh, put
from siglip_jax.scoring.batches import batches

_CHUNK = 64  # classes whose images are in order at a time


def average_precision(
    zimg: Any, classes: Any, labels: Any, *, mesh: Mesh | None = None
) -> Float64[np.ndarray, " classes"]:
    """Of each class the mean, over its own images, of the precision at their places.

    Of equal dot products the image with the lower index comes first. The unweighted mean over
    the classes is the mean average precision (mAP).

    Args:
      zimg: (n, d) embeddings of images, numpy or jax.
      classes: (classes, d), as `class_embeddings` returns them.
      labels: (n, most) the classes of each image, with -1 where there is no further one; an
        image without any is one that no class should find.
      mesh: devices that share the classes; default: the first device alone.

    Raises:
      ValueError: if shapes or labels do not fit, an embedding is not finite, or a class has no
        image (CLIP_benchmark has 0 for it).

    >>> z, labels = np.float32([[3, 0], [2, 1], [1, 2]]), [[0, 1], [-1, -1], [0, -1]]
    >>> average_precision(z, np.eye(2), labels)
    array([0.83333333, 0.33333333])
    """
    zimg, classes = np.asarray(zimg, np.float32), np.asarray(classes, np.float32)
    check_embeddings(zimg, classes)
    own = _membership(checked_labels(labels, len(zimg), len(classes)), len(classes))
    empty = np.flatnonzero(~own.any(axis=1))
    if len(empty):
        raise ValueError(
            f"{len(empty):,} of {len(classes):,} classes have no image, the first is class "
            f"{empty[0]}; they have no average precision, so leave them out"
        )
    mesh = make_mesh(jax.devices()[:1]) if mesh is None else mesh
    rows = NamedSharding(mesh, PartitionSpec(tuple(mesh.axis_names)))
    everywhere = NamedSharding(mesh, PartitionSpec())
    program, images = _in_order(rows, everywhere), put(zimg, everywhere)
    size = -(-min(_CHUNK, len(classes)) // mesh.size) * mesh.size
    found: list[float] = []
    for batch, count in batches(classes, size):
        for order in np.asarray(program(put(batch, rows), images))[:count]:
            places = np.flatnonzero(own[len(found)][order])
            found.append(float(np.mean(np.arange(1, len(places) + 1) / (places + 1))))
    return np.array(found)


def _membership(labels: np.ndarray, classes: int) -> np.ndarray:
    """Which images (classes, n) are of each class."""
    own = np.zeros((classes + 1, len(labels)), bool)  # the last row takes what is no label
    own[labels, np.arange(len(labels))[:, None]] = True
    return own[:-1]


@functools.lru_cache(maxsize=8)
def _in_order(rows: NamedSharding, everywhere: NamedSharding) -> Callable[..., Any]:
    def in_order(classes: Float[Array, "c d"], zimg: Float[Array, "n d"]) -> Int32[Array, "c n"]:
        similarity = jnp.dot(classes, zimg.T, precision=lax.Precision.HIGHEST)
        return jnp.argsort(-similarity, axis=1, stable=True)

    return jax.jit(in_order, in_shardings=(rows, everywhere), out_shardings=everywhere)
