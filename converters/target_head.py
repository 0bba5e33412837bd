"""The classifier of a fine-tune in the files of another system."""

import dataclasses
from typing import NamedTuple

import numpy as np

from siglip_jax.classifier import Classifier
from siglip_jax.config import Tower
from siglip_jax.errors import ModelError

from .checkpoint import OpenCheckpoint
from .classifiers import head_tensors
from .formats import FORMATS, format_named
from .tensors import PlanStep


class TargetHead(NamedTuple):
    """A classifier as it is written: its tensors by their names there."""

    classifier: Classifier
    tensors: dict[str, np.ndarray]


def target_head(
    opened: OpenCheckpoint, to: str, tower: Tower | None, dtype: str | None, *, keep: bool
) -> TargetHead | None:
    """The classifier to write, None where there is none or it is to be left out.

    Raises:
      ValueError: if the format, or the tower, has no place for it.
    """
    found = opened.classifier
    if found is None or not keep:
        return None
    layer, pooling = format_named(to).classifier or ("", None)
    if pooling == "map" and opened.config.pool == "gap":
        pooling = "mean"  # which is what that tower's pooling is
    if not layer or tower != "image" or pooling not in (None, found.pooling):
        what = {"mean": "the mean of the last tokens", "map": "the pooling head"}[found.pooling]
        raise ModelError(
            f"{opened.path} has a classifier of {len(found.labels)} classes on {what}, for which "
            f"{to} has no place",
            needs="classifier",
            advice="pass classifier=False to convert the tower without it",
        )
    if dtype is not None:
        kernel, bias = found.kernel.astype(dtype), found.bias.astype(dtype)
        found = dataclasses.replace(found, kernel=kernel, bias=bias)
    if format_named(to).steps is None:
        return TargetHead(found, {f"{layer}/kernel": found.kernel, f"{layer}/bias": found.bias})
    return TargetHead(found, head_tensors(found, layer))


def stored_head(opened: OpenCheckpoint) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the source's classifier in its own files."""
    if opened.classifier is None:
        return {}
    form = FORMATS[opened.format]
    layer = form.classifier[0] if form.classifier else "classifier"
    kernel, bias = opened.classifier.kernel.shape, opened.classifier.bias.shape
    if form.steps is None:
        return {f"{layer}/kernel": kernel, f"{layer}/bias": bias}
    return {f"{layer}.weight": kernel[::-1], f"{layer}.bias": bias}


def head_steps(opened: OpenCheckpoint, head: TargetHead | None) -> list[PlanStep]:
    if head is None:
        return []
    rows = zip(stored_head(opened).items(), head.tensors.items(), strict=True)
    return [
        PlanStep(
            sources=(name,),
            source_shapes=(shape,),
            target=target,
            shape=array.shape,
            dtype=array.dtype.name,
            operation="copy" if shape == array.shape else "i o -> o i",
        )
        for (name, shape), (target, array) in rows
    ]
