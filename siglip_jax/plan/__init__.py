"""Ahead-of-time compilation for TPU topologies: what a program would need on a slice."""

from siglip_jax.plan.bulk import BulkPlan, bulk_plan
from siglip_jax.plan.chips import CHIPS, Chip
from siglip_jax.plan.duration import Duration, duration_of
from siglip_jax.plan.estimate import Plan, TooLarge, largest_batch, make_plan
from siglip_jax.plan.hosts import HOSTS, Host
from siglip_jax.plan.published import PublishedRun, published_run
from siglip_jax.plan.shard_costs import ShardCosts, draw_costs
from siglip_jax.plan.simulation import Cluster, Simulated, simulate
from siglip_jax.plan.topology import Slice, find_slice
from siglip_jax.plan.training import training_workload
from siglip_jax.plan.workloads import Workload, scoring_program, scoring_workload

__all__ = [
    "CHIPS",
    "HOSTS",
    "BulkPlan",
    "Chip",
    "Cluster",
    "Duration",
    "Host",
    "Plan",
    "PublishedRun",
    "ShardCosts",
    "Simulated",
    "Slice",
    "TooLarge",
    "Workload",
    "bulk_plan",
    "draw_costs",
    "duration_of",
    "find_slice",
    "largest_batch",
    "make_plan",
    "published_run",
    "scoring_program",
    "scoring_workload",
    "simulate",
    "training_workload",
]
