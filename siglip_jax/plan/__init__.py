"""Ahead-of-time compilation for TPU topologies: what a program would need on a slice."""

from siglip_jax.plan.chips import CHIPS, Chip
from siglip_jax.plan.estimate import Plan, TooLarge, largest_batch, make_plan
from siglip_jax.plan.topology import Slice, find_slice
from siglip_jax.plan.training import training_workload
from siglip_jax.plan.workloads import Workload, scoring_program, scoring_workload

__all__ = [
    "CHIPS",
    "Chip",
    "Plan",
    "Slice",
    "TooLarge",
    "Workload",
    "find_slice",
    "largest_batch",
    "make_plan",
    "scoring_program",
    "scoring_workload",
    "training_workload",
]
