"""Embedding and scoring inside engines that run over tables: Ray Data, Spark, `datasets`, Beam.

Callables from a batch of columns to a batch with more columns. They hold settings alone, are
pickled to where an engine runs them, and load the model there, once a process. Engines read,
divide, retry and write; `siglip_jax.jobs` does so without one.

`siglip_jax.batch.beam` has the handler of Beam's `RunInference`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siglip_jax.batch.embedders import ImageEmbedder, TextEmbedder
    from siglip_jax.batch.label_scorer import LabelScorer

_LAZY = {
    "ImageEmbedder": "embedders",
    "LabelScorer": "label_scorer",
    "TextEmbedder": "embedders",
}

__all__ = ["ImageEmbedder", "LabelScorer", "TextEmbedder"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"siglip_jax.batch.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'siglip_jax.batch' has no attribute {name!r}")
