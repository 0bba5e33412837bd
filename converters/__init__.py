"""Checkpoints of SigLIP from any system to any other, and back, without a lost bit.

Imports as `siglip_jax.converters`. Formats: big_vision's `npz` and `tensorstore`,
`transformers`, `open_clip`, `timm` (the image tower) and `siglip_jax`, our own. numpy
only: no jax, no PyTorch.
"""

from .convert import convert, plan
from .detect import FORMATS, detect, open_checkpoint
from .plan import PlanStep
from .record import Record
from .source import Source

__all__ = [
    "FORMATS",
    "PlanStep",
    "Record",
    "Source",
    "convert",
    "detect",
    "open_checkpoint",
    "plan",
]
