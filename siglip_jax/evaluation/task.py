"""What a task of evaluation is: made of what is said of images, run on their embeddings."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax.sharding import Mesh

from siglip_jax.data.item import Pairs, items_of
from siglip_jax.scoring import Scorer

Encode = Callable[[list[str]], np.ndarray]


class Images(NamedTuple):
    """The images of a data set that could be embedded.

    Attributes:
      zimg: (n, d) unit-norm embeddings.
      good: (n,) their indices in the data set.
    """

    zimg: np.ndarray
    good: np.ndarray


class Measured(NamedTuple):
    """What a task found.

    Attributes:
      metrics: shares from 0 to 1, by name.
      facts: what they are of, as plain JSON types: counts, templates, settings, and metrics of
        parts such as languages.
    """

    metrics: dict[str, float]
    facts: dict[str, Any]


class Task(Protocol):
    """A task is made of the captions of all images of a data set, which it checks.

    Attributes:
      text_count: how many texts it embeds at most.
    """

    @property
    def text_count(self) -> int: ...

    def measure(self, images: Images, encode: Encode, mesh: Mesh | None = None) -> Measured:
        """The metrics.

        Args:
          images: those that could be read.
          encode: strings to unit-norm embeddings (n, d), such as `Scorer.embed_texts`.
          mesh: devices that share the work, where it is shared; default: the first alone.

        Raises:
          ValueError: if what could be read is not enough.
        """
        ...


def run_task(
    task: Task, pairs: Pairs, scorer: Scorer, on_error: Callable[[str, str], None] | None = None
) -> Measured:
    """A task, on the data that it was made of.

    Args:
      task: such as `Retrieval(captions_of(pairs))`.
      pairs: of `siglip_jax.data.open_pairs`.
      scorer: embeds them.
      on_error: called with the key of an image that cannot be read, and why; it is left out.
        Without it that is an error.

    Raises:
      ValueError: if an image cannot be read, or none can be; as the task's `measure`.

    See docs/reproducing_the_paper.md for an example.
    """
    zimg, rows = scorer.embed_items(items_of(pairs), total=len(pairs))
    for key, error in rows.errors:
        if on_error is None:
            raise ValueError(error if key in error else f"{key}: {error}")
        on_error(key, error)
    if not len(rows.good):
        raise ValueError(f"none of the {len(pairs):,} images can be read")
    return task.measure(Images(zimg, rows.good), scorer.embed_texts, scorer.mesh)
