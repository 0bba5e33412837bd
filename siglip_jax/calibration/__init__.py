"""Probabilities one can use: from logits of one model, for one set of labels."""

from siglip_jax.calibration.calibration import METHODS, Calibration
from siglip_jax.calibration.evidence import targets_of
from siglip_jax.calibration.fitting import calibrate
from siglip_jax.calibration.identity import Identity, identity_of
from siglip_jax.calibration.quality import Quality
from siglip_jax.calibration.report import Report, measure

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
