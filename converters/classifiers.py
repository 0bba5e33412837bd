"""Classifier heads in other systems' files: found, read with their labels, and written."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from siglip_jax.classifier import Activation, Classifier, Pooling, default_labels
from siglip_jax.weights.reader import FLOATS, Reader

from .json_file import Settings

_PROBLEMS: dict[str | None, Activation] = {
    None: "softmax",
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": None,
}


def head_names(stored: Reader, layer: str) -> list[str]:
    """The stored tensors of a dense layer; none where it is not there."""
    return [name for name in (f"{layer}.weight", f"{layer}.bias") if name in stored.shapes]


def read_head(
    stored: Reader,
    layer: str,
    labels: tuple[str, ...] | None,
    pooling: Pooling,
    activation: Activation,
) -> Classifier | None:
    """The classifier whose dense layer is `layer` in another system's file.

    Raises:
      ValueError: if it is no dense layer, or has not the classes that are named.
    """
    names = head_names(stored, layer)
    if not names:
        return None
    shapes = {name: stored.shapes[name] for name in names}
    weight, bias = shapes.get(f"{layer}.weight"), shapes.get(f"{layer}.bias")
    if weight is None or bias is None or len(weight.shape) != 2 or bias.shape != weight.shape[:1]:
        what = ", ".join(f"{name} {header.shape}" for name, header in shapes.items())
        raise ValueError(f"{stored.path}: the classifier is no dense layer with a bias: {what}")
    if wrong := [f"{n} is {h.dtype}" for n, h in shapes.items() if h.dtype not in FLOATS]:
        raise ValueError(f"{stored.path}: {wrong[0]}, expected a float")
    classes = weight.shape[0]
    if labels is not None and len(labels) != classes:
        raise ValueError(
            f"{stored.path}: the classifier has {classes} classes, and {len(labels)} are named"
        )
    return Classifier(
        labels=labels or default_labels(classes),
        kernel=np.ascontiguousarray(stored.read(f"{layer}.weight").T),
        bias=np.array(stored.read(f"{layer}.bias")),
        pooling=pooling,
        activation=activation,
    )


def head_tensors(classifier: Classifier, layer: str) -> dict[str, np.ndarray]:
    """The tensors of a dense layer of PyTorch."""
    kernel = np.ascontiguousarray(classifier.kernel.T)
    return {f"{layer}.weight": kernel, f"{layer}.bias": classifier.bias}


def transformers_labels(card: Settings) -> tuple[str, ...] | None:
    """`id2label`, in the order of the classes; None where there is none."""
    return labels_by_index(card, "id2label")


def transformers_activation(card: Settings, classes: int) -> Activation:
    """How its probabilities are made; a single class is a yes or no, as in its pipeline.

    Raises:
      ValueError: if `problem_type` is unknown.
    """
    problem = card.get("problem_type")
    if problem not in _PROBLEMS:
        known = ", ".join(str(name) for name in _PROBLEMS if name)
        raise ValueError(f"{card.where}: problem_type is {problem!r}, expected one of {known}")
    return "sigmoid" if problem is None and classes == 1 else _PROBLEMS[problem]


def transformers_card(classifier: Classifier) -> dict[str, Any]:
    """What `config.json` says of it."""
    kinds = {activation: name for name, activation in _PROBLEMS.items() if name}
    return {
        "id2label": {str(index): label for index, label in enumerate(classifier.labels)},
        "label2id": {label: index for index, label in enumerate(classifier.labels)},
        "problem_type": kinds[classifier.activation],
    }


def labels_by_index(card: Settings, key: str) -> tuple[str, ...] | None:
    """Labels that are a list, or an object from index to label; None where there are none.

    Raises:
      ValueError: if they are neither.
    """
    values = card.get(key)
    if values is None:
        return None
    if isinstance(values, Mapping):
        found = {str(k): v for k, v in cast(Mapping[Any, Any], values).items()}
        values = [found.get(str(index)) for index in range(len(found))]
    entries = cast(list[Any], values) if isinstance(values, list) else []
    labels = [label for label in entries if isinstance(label, str)]
    if not labels or len(labels) < len(entries):
        raise ValueError(f"{card.where}: {key} does not name the classes 0, 1, ... in order")
    return tuple(labels)
