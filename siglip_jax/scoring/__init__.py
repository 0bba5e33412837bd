"""Zero-shot scoring on one device or many."""

from siglip_jax.scoring.scorer import Scorer
from siglip_jax.scoring.scores import LabelScore, Scores

__all__ = ["LabelScore", "Scorer", "Scores"]
