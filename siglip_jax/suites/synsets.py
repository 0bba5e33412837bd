"""Classes that data call by numbers of WordNet, which no model knows: names for ImageNet's."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from siglip_jax.evaluation import imagenet_classes, imagenet_labels
from siglip_jax.evaluation.class_names import SYNSET
from siglip_jax.evaluation.imagenet import IMAGENET_SETS, ClassSet
from siglip_jax.suites.task import Task
from siglip_jax.suites.task_data import Classes

# The first and the last of ImageNet's 1,000, a tench and toilet tissue: sorted, as TensorFlow
# Datasets and folders have them, they are in the order of the labels.
_ENDS = ("n01440764", "n15075141")
_SUBSETS: dict[str, ClassSet] = {"imagenet-a": "imagenet_a", "imagenet-r": "imagenet_r"}


def named(data: Classes, task: Task, where: str, remedy: str) -> Classes:
    """The same data, whose classes have names that a model can be asked for.

    ImageNet's 1,000 synsets become CLIP's names; of ImageNet-A and -R, whose labels TensorFlow
    Datasets has among the 1,000, labels become those among their own 200.

    Args:
      where, remedy: for the error: where the names come from, and what to do.

    Raises:
      ValueError: the names are other synsets, or an image of a subset is of a class beyond it.

    >>> task = Task(name="pets", title="")
    >>> data = Classes(images=..., right={}, names=["n01440764", "n02119789"])
    >>> named(data, task, "x", "...")
    Traceback (most recent call last):
    ValueError: x: its classes are numbers of WordNet, such as n01440764, which no model knows: ...
    """
    names = data.names
    if not names or not all(SYNSET.fullmatch(name) for name in names):
        return data
    if not _of_imagenet(names):
        raise ValueError(
            f"{where}: its classes are numbers of WordNet, such as {names[0]}, which no model "
            f"knows: {remedy}"
        )
    which = _SUBSETS.get(task.name)
    if which is None:
        return dataclasses.replace(data, names=imagenet_classes())
    try:
        right = {
            key: tuple(imagenet_labels(np.array(own, int), which).tolist())
            for key, own in data.right.items()
        }
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return dataclasses.replace(data, names=imagenet_classes(which), right=right)


def _of_imagenet(names: Sequence[str]) -> bool:
    everything = len(IMAGENET_SETS["imagenet"])
    ends = (names[0], names[-1]) == _ENDS
    return len(names) == everything and ends and list(names) == sorted(set(names))
