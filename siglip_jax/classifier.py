"""The last layer of an image tower that was fine-tuned to tell classes apart."""

import dataclasses
import hashlib
import json
from typing import Any, Literal

import numpy as np

# What the layer is given: the tower's pooled output before it is normalised, or the mean of
# its last tokens.
Pooling = Literal["map", "mean"]
# From logits to probabilities. None is a regression, whose outputs are no logits of classes.
Activation = Literal["softmax", "sigmoid"] | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A dense layer on an image tower, and the classes that it tells apart.

    Attributes:
      labels: the classes, in the order of the columns.
      kernel: (d, classes), of any float dtype.
      bias: (classes,).
      pooling: "mean" of the last tokens (transformers), or the output of the pooling head,
        "map" (timm).
      activation: "softmax" where the classes exclude each other, "sigmoid" where they do not.

    Raises:
      ValueError: if shapes and labels do not go together.

    >>> Classifier(labels=("cat", "dog"), kernel=np.zeros((8, 2)), bias=np.zeros(2),
    ...            pooling="mean", activation="softmax").describe()
    {'labels': ['cat', 'dog'], 'pooling': 'mean', 'activation': 'softmax'}
    """

    labels: tuple[str, ...]
    kernel: np.ndarray
    bias: np.ndarray
    pooling: Pooling
    activation: Activation

    def __post_init__(self) -> None:
        classes = len(self.labels)
        if self.kernel.ndim != 2 or self.kernel.shape[1] != classes:
            raise ValueError(
                f"a classifier of shape {self.kernel.shape} has not the {classes} classes of "
                "its labels"
            )
        if self.bias.shape != (classes,):
            raise ValueError(f"a bias of shape {self.bias.shape} is not of {classes} classes")

    def describe(self) -> dict[str, Any]:
        """All but the weights, as plain JSON types."""
        return {
            "labels": list(self.labels),
            "pooling": self.pooling,
            "activation": self.activation,
        }

    def digest(self) -> str:
        """SHA-256 of all that its scores depend on."""
        digest = hashlib.sha256(json.dumps(self.describe()).encode())
        for array in (self.kernel, self.bias):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def equals(self, other: "Classifier | None") -> bool:
        """Whether `other` says the same, to the last bit."""
        return other is not None and self.digest() == other.digest()


def default_labels(classes: int) -> tuple[str, ...]:
    """What classes are called that have no names: as transformers does.

    >>> default_labels(2)
    ('LABEL_0', 'LABEL_1')
    """
    return tuple(f"LABEL_{index}" for index in range(classes))
