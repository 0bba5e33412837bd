"""Training with the sigmoid loss: losses, a pure step, recipes, and the loop around them."""

from siglip_jax.training.loop import train
from siglip_jax.training.loss import sigmoid_loss, softmax_loss
from siglip_jax.training.outcome import Diverged, TrainingProgress, TrainingResult
from siglip_jax.training.recipe import Recipe
from siglip_jax.training.recipe_file import read_recipe, recipe_from_dict
from siglip_jax.training.ring import chunked_sigmoid_loss

__all__ = [
    "Diverged",
    "Recipe",
    "TrainingProgress",
    "TrainingResult",
    "chunked_sigmoid_loss",
    "read_recipe",
    "recipe_from_dict",
    "sigmoid_loss",
    "softmax_loss",
    "train",
]
