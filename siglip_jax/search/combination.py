"""Several queries as one: near to all that is wanted, far from what is not."""

from typing import Any

import numpy as np

_LEAST = 1e-4  # norm of a difference that still says something of unit-norm rows


def combined(wanted: Any, unwanted: Any = ()) -> np.ndarray:
    """One query (1, d) float32: the mean of `wanted` less the mean of `unwanted`.

    The similarity of a row with it is the mean of the row's similarities with what is wanted
    less the mean of those with what is not: of "a dog" less "a cat", how much more of a dog
    than of a cat an image is. It is no longer of an image with a text, and has no probability.

    Args:
      wanted: (n, d), at least one; of any texts and images of one model.
      unwanted: (m, d), perhaps none.

    Raises:
      ValueError: if nothing is wanted, widths differ, or nothing is left.

    >>> combined([[1, 0], [0, 1]], [[0, 1]]).tolist()
    [[0.5, -0.5]]
    """
    ours, theirs = (np.asarray(rows, np.float32) for rows in (wanted, unwanted))
    if ours.ndim != 2 or not len(ours):
        raise ValueError(f"wanted must be of shape (n, d), n at least 1, got {ours.shape}")
    if not theirs.size:
        return ours.mean(axis=0, keepdims=True)
    if theirs.ndim != 2 or theirs.shape[1] != ours.shape[1]:
        raise ValueError(f"unwanted must be of shape (m, {ours.shape[1]}), got {theirs.shape}")
    made = ours.mean(axis=0, keepdims=True) - theirs.mean(axis=0, keepdims=True)
    if np.linalg.norm(made) < _LEAST:
        raise ValueError("what is wanted and what is unwanted are the same; nothing is left")
    return made
