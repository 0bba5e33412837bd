"""Zero-shot classification: class embeddings, and how often the nearest class is right.

Source: big_vision `evaluators/proj/image_text/discriminative_classifier.py`, at 0127fb6.
Neither temperature nor bias matters here.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32, Int32

from siglip_jax.evaluation.class_names import Aliases, class_texts
from siglip_jax.evaluation.templates import CLIP_PAPER
from siglip_jax.programs.sharding import make_mesh, put
from siglip_jax.scoring.batches import batches
from siglip_jax.scoring.prompts import average

_BATCH = 1024


def class_embeddings(
    encode: Callable[[list[str]], Any],
    names: Sequence[str],
    templates: Sequence[str] = CLIP_PAPER,
    *,
    canonical: bool = True,
    aliases: Aliases = "first",
) -> Float32[np.ndarray, "classes d"]:
    """Unit-norm embeddings (classes, d): the mean over a class's texts, normalised.

    Args:
      encode: strings to unit-norm embeddings (n, d), such as `Scorer.embed_texts`.
      names, templates, canonical, aliases: as `class_texts`.

    Raises:
      ValueError: as `class_texts`.

    >>> lengths = {"cat": [1, 0], "a cat": [0, 1]}
    >>> class_embeddings(lambda texts: [lengths[text] for text in texts], ["Cat"], ["{}", "a {}"])
    array([[0.70710677, 0.70710677]], dtype=float32)
    """
    spoken = class_texts(names, templates, canonical=canonical, aliases=aliases)
    z = np.asarray(encode([sentence for of_class in spoken for sentence in of_class]), np.float32)
    starts = np.cumsum([len(of_class) for of_class in spoken])[:-1]
    # Each sentence weighs the same, so a class's mean runs over names and templates at once.
    return np.concatenate([average(part, len(part)) for part in np.split(z, starts)])


def zero_shot_accuracy(
    zimg: Any,
    classes: Any,
    labels: Any,
    *,
    ks: Sequence[int] = (1, 5),
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Shares between 0 and 1: `accuracy`, big_vision's, and `top5_accuracy`.

    The k nearest classes are those of the largest dot products, the lower index first of
    equal ones. An image is right if any of its labels is among them, as for ImageNet
    ReaL; one without a label is wrong, so leave those out.

    Args:
      zimg: (n, d) embeddings of images, numpy or jax.
      classes: (classes, d), as `class_embeddings` returns them.
      labels: (n,) indices of classes; or (n, most) with -1 where there is no further one.
      ks: 1 is called `accuracy`, any other k `top{k}_accuracy`.
      mesh: devices that share the images; default: the first device alone.

    Raises:
      ValueError: if shapes or labels do not fit, or an embedding is not finite.

    >>> zero_shot_accuracy(np.eye(3), np.eye(3), [[0, -1], [2, 1], [0, -1]], ks=[1])
    {'accuracy': 0.6666666666666666}
    """
    zimg, classes = np.asarray(zimg, np.float32), np.asarray(classes, np.float32)
    labels = np.asarray(labels)
    labels = labels[:, None] if labels.ndim == 1 else labels
    _check(zimg, classes, labels, ks)
    mesh = make_mesh(jax.devices()[:1]) if mesh is None else mesh
    rows = NamedSharding(mesh, PartitionSpec(tuple(mesh.axis_names)))
    everywhere = NamedSharding(mesh, PartitionSpec())
    program = _nearest(rows, everywhere, min(max(ks), len(classes)))
    where = put(classes, everywhere)
    size = -(-min(_BATCH, len(zimg)) // mesh.size) * mesh.size
    nearest = np.concatenate(
        [
            np.asarray(program(put(batch, rows), where))[:count]
            for batch, count in batches(zimg, size)
        ]
    )
    right = (nearest[:, :, None] == labels[:, None]).any(axis=2)
    return {
        "accuracy" if k == 1 else f"top{k}_accuracy": float(right[:, :k].any(axis=1).mean())
        for k in ks
    }


@functools.lru_cache(maxsize=8)
def _nearest(rows: NamedSharding, everywhere: NamedSharding, k: int) -> Callable[..., Any]:
    def nearest(
        zimg: Float[Array, "b d"], classes: Float[Array, "classes d"]
    ) -> Int32[Array, "b k"]:
        similarity = jnp.dot(zimg, classes.T, precision=lax.Precision.HIGHEST)
        return lax.top_k(similarity, k)[1]

    return jax.jit(nearest, in_shardings=(rows, everywhere), out_shardings=everywhere)


def _check(zimg: np.ndarray, classes: np.ndarray, labels: np.ndarray, ks: Sequence[int]) -> None:
    if zimg.ndim != 2 or not len(zimg) or classes.ndim != 2 or zimg.shape[1:] != classes.shape[1:]:
        raise ValueError(
            "expected embeddings (n, d) of images and (classes, d) of classes, "
            f"got {zimg.shape} and {classes.shape}"
        )
    if not np.isfinite(zimg).all() or not np.isfinite(classes).all():
        raise ValueError("some embeddings are not finite; leave out what could not be embedded")
    if labels.ndim != 2 or len(labels) != len(zimg) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be integers of shape ({len(zimg)},) or ({len(zimg)}, most), "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < -1 or labels.max() >= len(classes):
        raise ValueError(
            f"labels must lie in 0..{len(classes) - 1}, or be -1 for none, "
            f"got {labels.min()}..{labels.max()}"
        )
    if not ks or any(k < 1 for k in ks):
        raise ValueError(f"ks must be whole numbers of at least 1, got {list(ks)}")
