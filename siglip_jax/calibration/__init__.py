"""Probabilities one can use: from logits of one model, for one set of labels."""

import importlib
from typing import TYPE_CHECKING, Any

from siglip_jax.calibration.calibration import METHODS, Calibration
from siglip_jax.calibration.evidence import targets_of
from siglip_jax.calibration.identity import Identity, identity_of
from siglip_jax.calibration.quality import Quality

if TYPE_CHECKING:
    from siglip_jax.calibration.fitting import calibrate
    from siglip_jax.calibration.report import Report, measure

# Looked up on first use: who applies a calibration fits none, for which scipy is imported.
_LAZY = {"calibrate": "fitting", "Report": "report", "measure": "report"}

__all__ = [
    "METHODS",
    "Calibration",
    "Identity",
    "Quality",
    "Report",
    "calibrate",
    "identity_of",
    "measure",
    "targets_of",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"siglip_jax.calibration.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'siglip_jax.calibration' has no attribute {name!r}")
