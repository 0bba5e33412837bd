"""Embeddings with one label each, to learn from and to test with."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64


class Labelled(NamedTuple):
    """Checked by `labelled`.

    Attributes:
      train: (n, d) embeddings to learn from.
      train_labels: (n,) the class of each, 0 to `classes` - 1; every class is there.
      test: (m, d) embeddings to test with.
      test_labels: (m,) the class of each.
      classes: how many there are.
    """

    train: Float64[np.ndarray, "n d"]
    train_labels: Int64[np.ndarray, " n"]
    test: Float64[np.ndarray, "m d"]
    test_labels: Int64[np.ndarray, " m"]
    classes: int


def labelled(train: Any, train_labels: Any, test: Any, test_labels: Any) -> Labelled:
    """The four, in float64, if they fit.

    Raises:
      ValueError: if shapes do not fit, an embedding is not finite, a label is no integer from
        0 on, there is one class alone, or one without an example to learn from.

    >>> labelled(np.eye(2), [0, 1], np.eye(2), [1, 1]).classes
    2
    """
    arrays = []
    for what, z, labels in (("train", train, train_labels), ("test", test, test_labels)):
        z, labels = np.asarray(z, np.float64), np.asarray(labels)
        if z.ndim != 2 or not len(z):
            raise ValueError(f"{what} must have shape (n, d) with n at least 1, got {z.shape}")
        if not np.isfinite(z).all():
            raise ValueError(
                f"some embeddings of {what} are not finite; leave out what could not be embedded"
            )
        if labels.shape != (len(z),) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"{what}_labels must hold one integer for each of the {len(z)} embeddings, "
                f"got {labels.dtype} of shape {labels.shape}"
            )
        if labels.min() < 0:
            raise ValueError(f"{what}_labels must be 0 or more, got {labels.min()}")
        arrays += [z, labels.astype(np.int64)]
    given = Labelled(*arrays, classes=int(max(arrays[1].max(), arrays[3].max())) + 1)
    if given.train.shape[1] != given.test.shape[1]:
        raise ValueError(
            f"train has {given.train.shape[1]} columns, test has {given.test.shape[1]}; both must "
            "come from one model"
        )
    absent = np.setdiff1d(np.arange(given.classes), given.train_labels)
    if len(absent):
        raise ValueError(
            f"{len(absent):,} of {given.classes:,} classes have no example to learn from, the "
            f"first is class {absent[0]}"
        )
    if given.classes == 1:
        raise ValueError("there is one class alone, so nothing to tell apart")
    return given
