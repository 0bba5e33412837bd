"""Prompt templates: one label, several texts, one embedding.

The average is that of big_vision
`evaluators/proj/image_text/discriminative_classifier.py`: the mean of the
normalised embeddings, normalised again.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np

from siglip_jax.scoring.rows import NOT_FINITE

# The name alone, as everywhere in big_vision where no template is given.
PLAIN = ("{}",)


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """`labels` as a tuple.

    Raises:
      ValueError: if there is none, one string was given for a list, or one is empty or no
        string.
    """
    if isinstance(labels, str):
        raise ValueError(f"labels must be a list of strings, got the string {labels!r}")
    if not len(labels):
        raise ValueError("the list of labels is empty; give at least one")
    for number, label in enumerate(cast(Sequence[object], labels)):
        if not isinstance(label, str):
            raise ValueError(f"labels must be strings; number {number} is {label!r:.40}")
        if not label.strip():
            raise ValueError(f"labels[{number}] is empty")
    return tuple(labels)


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """`templates` as a tuple.

    Raises:
      ValueError: if there is none, one string was given for a list, or one has
        no `{}` where the label goes.
    """
    if isinstance(templates, str):
        raise ValueError(f"templates must be a list of strings, got the string {templates!r}")
    if not templates:
        raise ValueError("templates is empty; ('{}',) uses the labels as they are")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(
                f"template {template!r} must hold {{}} once, where the label goes, "
                "as in 'a photo of a {}.'"
            )
    return tuple(templates)


def expand(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every label in every template, all texts of a label together.

    >>> expand(["cat", "dog"], ["a {}", "two {}s"])
    ['a cat', 'two cats', 'a dog', 'two dogs']
    """
    # str.replace: a label may hold braces of its own.
    return [template.replace("{}", label) for label in labels for template in templates]


def average(ztxt: np.ndarray, templates: int) -> np.ndarray:
    """(labels·templates, d) embeddings of `expand`'s texts to (labels, d).

    >>> average(np.float32([[1, 0], [0, 1]]), 2)
    array([[0.70710677, 0.70710677]], dtype=float32)
    """
    if templates == 1:
        return ztxt
    mean = ztxt.reshape(-1, templates, ztxt.shape[-1]).mean(axis=1)
    # big_vision: 1e-8 is added to the norm.
    return mean / (np.linalg.norm(mean, axis=1, keepdims=True) + np.float32(1e-8))


def check_finite(z: np.ndarray, labels: Sequence[str]) -> None:
    """Refuses labels of which the model makes NaN: no image is near to them, nor far.

    >>> check_finite(np.float32([[0, 1], [np.nan, 0]]), ["a dog", "a cat"])
    Traceback (most recent call last):
    ValueError: label 'a cat': the model makes NaN or infinity of it
    """
    bad = np.flatnonzero(~np.isfinite(z).all(axis=1))
    if len(bad):
        raise ValueError(f"label {labels[bad[0]]!r}: {NOT_FINITE}")
