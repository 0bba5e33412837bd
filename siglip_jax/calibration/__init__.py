"""Probabilities one can use: from logits of one model, for one set of labels."""

from siglip_jax.calibration.calibration import METHODS, Calibration
from siglip_jax.calibration.identity import Identity, identity_of

__all__ = ["METHODS", "Calibration", "Identity", "identity_of"]
