"""Training runs whose chips and days a paper states, to hold a prediction against."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """A run as its paper states it.

    Attributes:
      image, text: width and depth of the towers.
      patch: of the image tower.
      locked: whether the image tower was frozen and its embeddings computed before.
      days: of the run, which is what was published; less than these where `less`.
    """

    name: str
    source: str
    image: tuple[int, int]
    patch: int
    text: tuple[int, int]
    locked: bool
    batch: int
    steps: int
    chip: str
    chips: int
    days: float
    less: bool = False

    def describe(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)


RUNS: tuple[PublishedRun, ...] = (
    PublishedRun(
        name="SigLiT g/14 with an L text tower",
        source="arXiv 2303.15343, table 1",
        image=(1408, 40),
        patch=14,
        text=(1024, 24),
        locked=True,
        # "20k" there: the next number that many chips divide.
        batch=20_480,
        steps=107_000,
        chip="v4",
        chips=4,
        days=2.0,
        less=True,
    ),
)


def published_run(recipe: Any) -> PublishedRun | None:
    """The published run that a `training.Recipe` is of; None if there is none.

    What decides how long a step takes, and how many there are, must be the same: towers, what
    is frozen, batch and steps. A recipe's name is not asked for.

    >>> from siglip_jax.training import recipe_from_dict
    >>> model = {"like": "siglip_b16_224"}
    >>> table = {"steps": 1, "batch": 8, "data": {"train": "x.tar"}, "model": model}
    >>> print(published_run(recipe_from_dict(table)))
    None
    """
    config = recipe.config
    if config is None or config.vision is None or config.text is None:
        return None
    image, text = config.vision.size, config.text.size
    facts = {
        "image": (image.width, image.depth),
        "patch": config.vision.patch,
        "text": (text.width, text.depth),
        "locked": recipe.data.cache_images,
        "batch": recipe.batch,
        "steps": recipe.steps,
    }
    return next(
        (run for run in RUNS if all(getattr(run, name) == fact for name, fact in facts.items())),
        None,
    )
