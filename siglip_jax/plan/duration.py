"""How long all steps of a recipe take, from one compiled step."""

import dataclasses
from typing import Any

from siglip_jax.plan.measured import TRAINING
from siglip_jax.plan.published import PublishedRun, published_run

_DAY = 24 * 3600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duration:
    """Days of a whole run.

    Attributes:
      steps, examples: of the run; an example is an image with a text.
      compute: days if every matmul ran at the chip's published peak: no run is shorter.
      memory: days if all bytes that XLA counts went through the chip's memory, which is an
        upper bound on them.
      measured: days at the share of the peak that a training step has been measured at.
      published: of the same run; None if no paper states it.
      assumptions: what all of this takes for granted, a sentence each.
    """

    steps: int
    examples: int
    compute: float
    memory: float
    measured: float
    published: PublishedRun | None
    assumptions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain = dataclasses.asdict(self)
        return plain | {"assumptions": list(self.assumptions)}


def duration_of(
    recipe: Any, *, batch: int, compute_seconds: float, memory_seconds: float
) -> Duration:
    """The days that `recipe.steps` of a planned step take.

    Args:
      recipe: a `training.Recipe`.
      batch, compute_seconds, memory_seconds: of its step, as in `Plan`.

    >>> from siglip_jax.training import recipe_from_dict
    >>> model = {"like": "siglip_b16_224"}
    >>> table = {"steps": 86_400, "batch": 8, "data": {"train": "x.tar"}, "model": model}
    >>> recipe = recipe_from_dict(table)
    >>> duration = duration_of(recipe, batch=8, compute_seconds=0.5, memory_seconds=0.25)
    >>> duration.compute, duration.memory, round(duration.measured, 2), duration.examples
    (0.5, 0.25, 1.53, 691200)
    """
    days = recipe.steps / _DAY
    assumptions = [
        "the compiled step, as often as the recipe says, and nothing else: no start, no "
        "checkpoint, no evaluation, no step that waits for data",
        f"measured: {TRAINING.share:.0%} of the published peak, as {TRAINING.source} "
        "(benchmarks/RESULTS.md); no TPU has been measured",
    ]
    if recipe.data.cache_images:
        assumptions.append(
            "every image was embedded before, and its embedding is read as fast as it is used"
        )
    if recipe.execution.remat is not None:
        assumptions.append(
            f"blocks are computed again on the way back (remat={recipe.execution.remat}), "
            "which the FLOPs include"
        )
    return Duration(
        steps=recipe.steps,
        examples=recipe.steps * batch,
        compute=days * compute_seconds,
        memory=days * memory_seconds,
        measured=days * compute_seconds / TRAINING.share,
        # Another batch makes it another run.
        published=published_run(recipe) if batch == recipe.batch else None,
        assumptions=tuple(assumptions),
    )
