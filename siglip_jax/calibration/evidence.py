"""Scores of images, and which labels are right, as a fit can use them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from siglip_jax.messages import did_you_mean


class Evidence(NamedTuple):
    """Logits (n, labels) float64, and whether each label is right (n, labels) bool, if known."""

    logits: np.ndarray
    targets: np.ndarray | None = None

    @property
    def known(self) -> np.ndarray:
        """The targets.

        Raises:
          ValueError: if there are none.
        """
        if self.targets is None:
            raise ValueError("this needs labelled images; without labels there is method='expect'")
        return self.targets

    def part(self, rows: np.ndarray) -> "Evidence":
        """The images of `rows`."""
        return Evidence(self.logits[rows], None if self.targets is None else self.targets[rows])


def evidence(logits: Any, labels: Sequence[str], targets: Any = None) -> Evidence:
    """Checked logits and targets.

    Raises:
      ValueError: one line: no images, another number of labels, or scores that are not finite
        or all the same.

    >>> evidence([[1.0, 1.0]], ["cat", "dog"])
    Traceback (most recent call last):
    ValueError: all 2 scores are the same, 1: no label is told from another, ...
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2 or logits.shape[1] != len(labels):
        raise ValueError(f"expected logits of shape (n, {len(labels)}), got {logits.shape}")
    if not len(logits):
        raise ValueError("there is no image to calibrate with")
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise ValueError(
            f"the scores of {len(bad):,} of {len(logits):,} images are NaN or infinite, the first "
            f"of image {bad[0]}; leave these images out"
        )
    if logits.size > 1 and np.ptp(logits) == 0:
        raise ValueError(
            f"all {logits.size:,} scores are the same, {logits.flat[0]:.6g}: no label is told from "
            "another, and there is nothing to calibrate"
        )
    if targets is None:
        return Evidence(logits)
    targets = np.asarray(targets)
    if targets.shape != logits.shape or not np.isin(targets, (0, 1)).all():
        raise ValueError(
            f"expected targets of shape {logits.shape}, each 0 or 1, got {targets.shape}"
        )
    return Evidence(logits, targets.astype(bool))


def refuse_few(given: Evidence, labels: Sequence[str]) -> None:
    """A ValueError unless there are two positive and two negative examples.

    >>> refuse_few(evidence([[1.0, 2.0]], ["cat", "dog"], [[True, False]]), ["cat", "dog"])
    Traceback (most recent call last):
    ValueError: there is one positive example, of 'cat'; expected two or more
    """
    for what, where in (("positive", given.known), ("negative", ~given.known)):
        count = int(where.sum())
        if count < 2:
            of = f", of {labels[int(np.argmax(where.any(axis=0)))]!r}" if count else ""
            is_there = "there is one" if count else "there is no"
            raise ValueError(f"{is_there} {what} example{of}; expected two or more")


def targets_of(right: Sequence[Sequence[str]], labels: Sequence[str]) -> np.ndarray:
    """Which labels are right, (n, labels) bool, from the labels of each image.

    Raises:
      ValueError: if an image has a label that is none of `labels`, or one is there twice.

    >>> targets_of([["dog"], ["cat", "dog"], []], ["cat", "dog"]).astype(int).tolist()
    [[0, 1], [1, 1], [0, 0]]
    """
    column = {label: number for number, label in enumerate(labels)}
    if len(column) < len(labels):
        twice = next(label for number, label in enumerate(labels) if column[label] != number)
        raise ValueError(f"the label {twice!r} is there twice")
    unknown = [label for own in right for label in own if label not in column]
    if unknown:
        different = len(set(unknown))
        raise ValueError(
            f"{different:,} label{'s' * (different > 1)} of the images "
            f"{'are' if different > 1 else 'is'} none of the {len(labels):,} to calibrate, such as "
            f"{unknown[0]!r}{did_you_mean(unknown[0], labels)}"
        )
    targets = np.zeros((len(right), len(labels)), bool)
    for row, own in enumerate(right):
        targets[row, [column[label] for label in own]] = True
    return targets
