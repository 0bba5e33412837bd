"""Programs compiled for devices that are not there, and what they would need."""

from siglip_jax.plan.chips import CHIPS, Chip
from siglip_jax.plan.estimate import Plan, TooLarge, largest_batch, make_plan
from siglip_jax.plan.programs import Job, scoring_job, scoring_program
from siglip_jax.plan.topology import Place, place
from siglip_jax.plan.training import training_job

__all__ = [
    "CHIPS",
    "Chip",
    "Job",
    "Place",
    "Plan",
    "TooLarge",
    "largest_batch",
    "make_plan",
    "place",
    "scoring_job",
    "scoring_program",
    "training_job",
]
