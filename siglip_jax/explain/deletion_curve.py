"""How a score falls while the patches of an image are taken away: the test of a map."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from siglip_jax.explain.grid import grid_of
from siglip_jax.preprocessing import Patches

if TYPE_CHECKING:
    from siglip_jax.scoring import Scorer


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Deletion:
    """A deletion curve.

    Attributes:
      shares: (steps + 1,) which share of the patches is gone, from 0 to 1.
      logits: (steps + 1,) the score then.
    """

    shares: np.ndarray
    logits: np.ndarray

    @property
    def area(self) -> float:
        """Area under the curve, the score scaled from 0 (all gone) to 1 (none gone).

        The lower, the earlier what counts is gone. NaN where the whole image has the score of
        the empty one.
        """
        top, bottom = float(self.logits[0]), float(self.logits[-1])
        if top == bottom:
            return float("nan")
        curve = (self.logits - bottom) / (top - bottom)
        return float(np.sum(np.diff(self.shares) * (curve[1:] + curve[:-1]) / 2))


def deletion(
    scorer: "Scorer", image: Any, label: str, heat: np.ndarray, *, steps: int = 16
) -> Deletion:
    """The scores of an image whose patches go in the order of a map, highest first.

    A patch goes by becoming the mean colour of the image, so that nothing takes its place.

    Args:
      scorer: of the model.
      image: as for `Scorer.preprocess`.
      label: what is scored.
      heat: (rows, columns), such as `Explanation.maps[0]`; of equal patches the first goes first.
      steps: points of the curve beside the first.

    Raises:
      ValueError: if the image cannot be read, or `heat` is not of its grid.

    >>> import siglip_jax
    >>> scorer = siglip_jax.load("siglip_emoji").scorer(batch_size=1)
    >>> image = np.zeros((32, 32, 3), np.uint8)
    >>> image[:16, :16] = 255
    >>> found = deletion(scorer, image, "a square", np.float32([[3, 2], [1, 0]]), steps=4)
    >>> found.shares.tolist(), found.logits.shape
    ([0.0, 0.25, 0.5, 0.75, 1.0], (5,))
    """
    ready = scorer.preprocess(image)
    grid = grid_of(ready, scorer.model.config.image_tower)
    if np.shape(heat) != (grid.rows, grid.columns):
        raise ValueError(
            f"expected a map of shape {(grid.rows, grid.columns)}, which the patches of this image "
            f"have, got {np.shape(heat)}"
        )
    count = grid.rows * grid.columns
    # Steps of as many patches each; of fewer patches than steps there are fewer.
    gone = np.unique(np.round(np.linspace(0, count, steps + 1)).astype(int))
    order = np.argsort(-np.ravel(heat), kind="stable")
    images = [_without(ready, grid, order[:number]) for number in gone]
    if isinstance(ready, Patches):
        batch: Any = Patches(*(np.stack(parts) for parts in zip(*images, strict=True)))
    else:
        batch = np.stack(images)
    ztxt = scorer.embed_labels([label])
    logits = scorer.logits(scorer.embed_images(batch), ztxt)[:, 0]
    return Deletion(shares=gone / count, logits=logits)


def _without(ready: Any, grid: Any, cells: np.ndarray) -> Any:
    """The image with some cells of its grid, counted row by row, in its mean colour."""
    if isinstance(ready, Patches):
        patches = np.array(ready.patches)
        mean = patches[grid.index].reshape(-1, 3).mean(axis=0)
        patches[grid.index[cells]] = np.tile(mean, grid.patch**2)
        return ready._replace(patches=patches)
    pixels, side = np.array(ready), grid.patch
    mean = np.round(pixels.reshape(-1, 3).mean(axis=0))
    for row, column in zip(*np.divmod(cells, grid.columns), strict=True):
        pixels[row * side : (row + 1) * side, column * side : (column + 1) * side] = mean
    return pixels
