"""Flax modules whose parameter tree is big_vision's."""

from siglip_jax.models.naflex import check_grid, check_patches
from siglip_jax.models.two_towers import SiglipModel, abstract_inputs, logits, normalize
from siglip_jax.models.vision import value_range

__all__ = [
    "SiglipModel",
    "abstract_inputs",
    "check_grid",
    "check_patches",
    "logits",
    "normalize",
    "value_range",
]
