"""Why a score is what it is: which patches of an image a model looks at, and which count."""

import importlib
from typing import TYPE_CHECKING, Any

from siglip_jax.explain.explanation import METHODS, Explanation

if TYPE_CHECKING:
    from siglip_jax.explain.deletion_curve import Deletion, deletion

# Looked up on first use: what asks for the names of methods needs no jax.
_LAZY = {"Deletion": "deletion_curve", "deletion": "deletion_curve"}

__all__ = ["METHODS", "Deletion", "Explanation", "deletion"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"siglip_jax.explain.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'siglip_jax.explain' has no attribute {name!r}")
