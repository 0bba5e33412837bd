"""The metrics of a task, in CLIP_benchmark's names: shares between 0 and 1."""

from collections.abc import Mapping, Sequence

import numpy as np
from jax.sharding import Mesh

from siglip_jax.evaluation import (
    average_precision,
    mean_per_class_recall,
    nearest_classes,
    recall,
)
from siglip_jax.evaluation.classification import shares_right
from siglip_jax.evaluation.labels import padded_labels
from siglip_jax.suites.task import Task

# FMoW's region that DataComp leaves out of the worst.
_OTHER_REGION = 5


def class_metrics(
    task: Task,
    zimg: np.ndarray,
    classes: np.ndarray,
    right: Sequence[tuple[int, ...]],
    groups: Sequence[int] | None = None,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Of images of one class, or of which any of several is right.

    Args:
      zimg: (n, d) embeddings; classes: (classes, d).
      right: of each image.
      groups: of each image, where the task has them.

    `acc1`; `acc5` where there are 5 classes or more; `mean_per_class_recall`, `f1_macro` (over
    the classes that images are of) where each image is of one.
    """
    from sklearn.metrics import f1_score  # takes 0.5 s, and is for this alone

    labels = padded_labels(right)
    ks = [1, 5] if len(classes) >= 5 else [1]
    nearest = nearest_classes(zimg, classes, k=max(ks), mesh=mesh)
    found = shares_right(nearest, labels, ks)
    metrics = {"acc1": found["accuracy"]}
    if 5 in ks:
        metrics["acc5"] = found["top5_accuracy"]
    if labels.shape[1] > 1:
        return metrics
    target, best = labels[:, 0], nearest[:, 0]
    metrics["mean_per_class_recall"] = mean_per_class_recall(best, target)
    there = np.unique(target)
    metrics["f1_macro"] = float(f1_score(target, best, labels=there, average="macro"))
    if task.group is not None and groups is not None:
        metrics |= _worst(task, nearest, labels, np.asarray(groups))
    return metrics


def multilabel_metrics(
    zimg: np.ndarray,
    classes: np.ndarray,
    right: Sequence[tuple[int, ...]],
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Of images that any number of classes fit: the mean of the classes' average precisions.

    Classes without an image that can be read are left out.
    """
    labels = padded_labels(right)
    there = np.unique(labels[labels >= 0])
    place = np.full(len(classes) + 1, -1)  # of -1, the last, too
    place[there] = np.arange(len(there))
    precisions = average_precision(zimg, classes[there], place[labels], mesh=mesh)
    return {"mean_average_precision": float(precisions.mean())}


def caption_metrics(
    zimg: np.ndarray, ztxt: np.ndarray, owner: Sequence[int], mesh: Mesh | None = None
) -> dict[str, float]:
    """Recalls of images for a caption, and of captions for an image.

    Args:
      zimg: (n, d); ztxt: (texts, d); owner: of each text the row of its image.
    """
    found = recall(zimg, ztxt, owner, mesh=mesh)
    metrics = {}
    for ours, theirs in (("txt2img", "image"), ("img2txt", "text")):
        for k in (1, 5, 10):
            metrics[f"{theirs}_retrieval_recall@{k}"] = found[f"{ours}_recall@{k}"]
    return metrics | {"mean_recall@1": _mean_recall(metrics)}


def _mean_recall(metrics: Mapping[str, float]) -> float:
    return (metrics["image_retrieval_recall@1"] + metrics["text_retrieval_recall@1"]) / 2


def _worst(
    task: Task, nearest: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> dict[str, float]:
    """The accuracy of the group for which it is lowest."""
    k = 5 if "top5" in task.metric else 1
    skipped = _OTHER_REGION if task.metric == "acc_worst_region" else None
    worst = [
        min(shares_right(nearest[own], labels[own], [k]).values())
        for group in np.unique(groups)
        if group != skipped
        for own in [groups == group]
    ]
    return {task.metric: min(worst)} if worst else {}
