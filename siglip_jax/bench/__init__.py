"""How fast a model runs on the devices that are there."""

from siglip_jax.bench.peak import matrix_peak
from siglip_jax.bench.tower import TowerSpeed, measure_tower, random_weights

__all__ = ["TowerSpeed", "matrix_peak", "measure_tower", "random_weights"]
