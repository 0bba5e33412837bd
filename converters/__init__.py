"""Checkpoints of SigLIP from any system to any other, and back, without a lost bit.

Imports as `siglip_jax.converters`. Formats: big_vision's `npz` and `tensorstore`,
`transformers`, `open_clip`, `timm` (the image tower) and `siglip_jax`, our own; each is
declared as a `Format` in its system's file, and all of them are `FORMATS`. numpy only: no
jax, no PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .checkpoint import OpenCheckpoint
from .format import Format
from .formats import FORMATS, detect, needed_files, open_checkpoint

if TYPE_CHECKING:
    from .conversion import convert, plan
    from .record import Record
    from .tensors import PlanStep

# Looked up on first use: opening a model converts nothing, and a first score should come soon.
_LAZY = {"PlanStep": "tensors", "Record": "record", "convert": "conversion", "plan": "conversion"}

__all__ = [
    "FORMATS",
    "Format",
    "OpenCheckpoint",
    "PlanStep",
    "Record",
    "convert",
    "detect",
    "needed_files",
    "open_checkpoint",
    "plan",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"siglip_jax.converters.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'siglip_jax.converters' has no attribute {name!r}")
