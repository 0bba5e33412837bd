"""Zero-shot scoring on one device or many."""

from siglip_jax.scoring.program import Program
from siglip_jax.scoring.scorer import Scorer
from siglip_jax.scoring.scores import Hit, Scores
from siglip_jax.scoring.sharding import FSDP, REPLICATED, make_mesh, sharding_of

__all__ = [
    "FSDP",
    "REPLICATED",
    "Hit",
    "Program",
    "Scorer",
    "Scores",
    "make_mesh",
    "sharding_of",
]
