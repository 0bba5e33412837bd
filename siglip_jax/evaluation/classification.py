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


def nearest_classes(
    zimg: Any, classes: Any, *, k: int = 5, mesh: Mesh | None = None
) -> Int32[np.ndarray, "n k"]:
    """Of each image the k classes of the largest dot products, the nearest first.

    The lower index comes first of equal ones. Of fewer than k classes it is all of them.

    Args:
      zimg, classes, mesh: as `zero_shot_accuracy`.

    Raises:
      ValueError: if shapes do not fit, or an embedding is not finite.

    >>> nearest_classes(np.float32([[2, 1, 0]]), np.eye(3), k=2)
    array([[0, 1]], dtype=int32)
    """
    zimg, classes = np.asarray(zimg, np.float32), np.asarray(classes, np.float32)
    check_embeddings(zimg, classes)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    mesh = make_mesh(jax.devices()[:1]) if mesh is None else mesh
    rows = NamedSharding(mesh, PartitionSpec(tuple(mesh.axis_names)))
    everywhere = NamedSharding(mesh, PartitionSpec())
    program = _nearest(rows, everywhere, min(k, len(classes)))
    where = put(classes, everywhere)
    size = -(-min(_BATCH, len(zimg)) // mesh.size) * mesh.size
    return np.concatenate(
        [
            np.asarray(program(put(batch, rows), where))[:count]
            for batch, count in batches(zimg, size)
        ]
    )


def zero_shot_accuracy(
    zimg: Any,
    classes: Any,
    labels: Any,
    *,
    ks: Sequence[int] = (1, 5),
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Shares between 0 and 1: `accuracy`, big_vision's, and `top5_accuracy`.

    An image is right if any of its labels is among the k `nearest_classes`, as for ImageNet
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
    check_embeddings(zimg, classes)
    labels = checked_labels(labels, len(zimg), len(classes))
    if not ks or any(k < 1 for k in ks):
        raise ValueError(f"ks must be whole numbers of at least 1, got {list(ks)}")
    return shares_right(nearest_classes(zimg, classes, k=max(ks), mesh=mesh), labels, ks)


def shares_right(
    nearest: Int32[np.ndarray, "n k"] | np.ndarray,
    labels: np.ndarray,
    ks: Sequence[int] = (1, 5),
) -> dict[str, float]:
    """`zero_shot_accuracy` of classes in order of their nearness, however that is known.

    >>> shares_right(np.array([[1, 0], [0, 1]]), np.array([0, 0]), [1, 2])
    {'accuracy': 0.5, 'top2_accuracy': 1.0}
    """
    labels = labels[:, None] if labels.ndim == 1 else labels
    right = (nearest[:, :, None] == labels[:, None]).any(axis=2)
    return {
        "accuracy" if k == 1 else f"top{k}_accuracy": float(right[:, :k].any(axis=1).mean())
        for k in ks
    }


def mean_per_class_recall(predicted: Any, labels: Any) -> float:
    """The share of right images of each class, averaged over the classes that have images.

    As scikit-learn's `balanced_accuracy_score`, and CLIP_benchmark's metric of this name: a
    class of few images weighs as much as one of many.

    Args:
      predicted: (n,) the class that each image is taken for.
      labels: (n,) the class that it is of.

    Raises:
      ValueError: if there is no image, or these are not two lists of as many integers.

    >>> mean_per_class_recall([0, 0, 0, 0], [0, 0, 0, 1])
    0.5
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    kinds = (np.issubdtype(each.dtype, np.integer) for each in (predicted, labels))
    if predicted.shape != labels.shape or labels.ndim != 1 or not len(labels) or not all(kinds):
        raise ValueError(
            "expected as many integers that are predicted as labels, got "
            f"{predicted.dtype} of shape {predicted.shape} and {labels.dtype} of {labels.shape}"
        )
    present, own = np.unique(labels, return_inverse=True)
    right = np.bincount(own, predicted == labels, len(present))
    return float((right / np.bincount(own)).mean())


@functools.lru_cache(maxsize=8)
def _nearest(rows: NamedSharding, everywhere: NamedSharding, k: int) -> Callable[..., Any]:
    def nearest(
        zimg: Float[Array, "b d"], classes: Float[Array, "classes d"]
    ) -> Int32[Array, "b k"]:
        similarity = jnp.dot(zimg, classes.T, precision=lax.Precision.HIGHEST)
        return lax.top_k(similarity, k)[1]

    return jax.jit(nearest, in_shardings=(rows, everywhere), out_shardings=everywhere)


def check_embeddings(zimg: np.ndarray, classes: np.ndarray) -> None:
    """Raises a ValueError if these are not (n, d) and (classes, d), and finite."""
    if (
        zimg.ndim != 2
        or not len(zimg)
        or classes.ndim != 2
        or not len(classes)
        or zimg.shape[1:] != classes.shape[1:]
    ):
        raise ValueError(
            "expected embeddings (n, d) of images and (classes, d) of classes, "
            f"got {zimg.shape} and {classes.shape}"
        )
    if not np.isfinite(zimg).all() or not np.isfinite(classes).all():
        raise ValueError("some embeddings are not finite; leave out what could not be embedded")


def checked_labels(labels: Any, images: int, classes: int) -> np.ndarray:
    """Labels (n, most) of (n,) or (n, most), -1 where there is no further one.

    Raises:
      ValueError: if there are not as many as images, or one is of no class.
    """
    labels = np.asarray(labels)
    labels = labels[:, None] if labels.ndim == 1 else labels
    if labels.ndim != 2 or len(labels) != images or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be integers of shape ({images},) or ({images}, most), "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if not labels.size or labels.min() < -1 or labels.max() >= classes:
        got = f"{labels.min()}..{labels.max()}" if labels.size else "none"
        raise ValueError(f"labels must lie in 0..{classes - 1}, or be -1 for none, got {got}")
    return labels
