"""How good the towers are on pairs that they are not trained on, while they are."""

from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from siglip_jax.data import open_pairs
from siglip_jax.evaluation.retrieval import recall
from siglip_jax.programs.towers import Program
from siglip_jax.training.embeddings import embed_captions, embed_images
from siglip_jax.training.recipe import Recipe
from siglip_jax.training.start import Start, rules


def program(begin: Start, mesh: Mesh, recipe: Recipe) -> Program:
    """The towers as inference runs them, with the weights where training has them."""
    return Program(begin.model, mesh, rules(recipe), begin.profile.image.value_range)


def inference_batch(recipe: Recipe, mesh: Mesh) -> int:
    """Examples to embed at a time: few, since they come beside what training holds."""
    return min(recipe.batch, max(64 // mesh.size, 1) * mesh.size)


def make_evaluator(
    recipe: Recipe, begin: Start, mesh: Mesh
) -> Callable[[Any], dict[str, float]] | None:
    """Recall of `[evaluate]`, as a function of the weights; None without that table.

    Raises:
      ValueError: if its data cannot be opened. The function: if an image cannot be read.
    """
    if recipe.evaluate is None:
        return None
    e = recipe.evaluate
    pairs = open_pairs(
        e.data, image_column=e.image_column, text_column=e.text_column, separator=e.separator
    )
    towers = program(begin, mesh, recipe)
    batch = inference_batch(recipe, mesh)

    def evaluate(params: Any) -> dict[str, float]:
        zimg = embed_images(towers, params, pairs, begin.profile, batch=batch)
        ztxt, owners = embed_captions(towers, params, pairs, begin.tokenizer, batch=batch)
        return recall(zimg, ztxt, owners, mesh=mesh)

    return evaluate
