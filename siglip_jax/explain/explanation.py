"""What an explanation is: maps over the patches of an image, for each label."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from siglip_jax.scoring import Scores

# What a map shows; the first is the default. See docs/seeing_why.md for how they were compared.
METHODS = ("integrated_gradients", "gradient", "similarity", "attention")
# Maps of these have a sign: a patch may speak against a label.
SIGNED = ("gradient", "integrated_gradients")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Explanation:
    """Why one image has the scores it has.

    Attributes:
      labels: what was scored.
      logits: (labels,) float32, the model's scores.
      method: one of `METHODS`.
      maps: (labels, rows, columns) float32, a number for each patch. For "gradient" and
        "integrated_gradients" in logits, positive where the patch speaks for the label; for
        "similarity" the logit of the patch alone; for "attention" the mean over heads.
      attention: (heads, rows, columns) float32: where each head of the pooling head looks, with
        a sum of 1; None of a model that takes the mean of patches.
      pixels: (h, w, 3) uint8, the image as the model sees it.
      gaps: (labels,) for "integrated_gradients", how far the sum of a map is from what it
        explains, as a share of that; else None.
    """

    labels: tuple[str, ...]
    logits: np.ndarray
    method: str
    maps: np.ndarray
    attention: np.ndarray | None
    pixels: np.ndarray
    gaps: np.ndarray | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; of a NaFlex model each image has its own."""
        rows, columns = self.maps.shape[1:]
        return rows, columns

    @property
    def scores(self) -> "Scores":
        """The scores that are explained, of one image."""
        from siglip_jax.scoring import Scores

        return Scores(self.logits[None], self.labels)

    def peak(self, index: int = 0) -> tuple[int, int]:
        """Row and column of the patch that speaks most for a label.

        Args:
          index: of the label.
        """
        row, column = np.unravel_index(int(np.argmax(self.maps[index])), self.grid)
        return int(row), int(column)

    def figure(self) -> Any:
        """A `matplotlib.figure.Figure`: the image, a map of each label, and every head.

        Raises:
          ValueError: if matplotlib is not installed.
        """
        from siglip_jax.explain.drawing import draw

        return draw(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the figure as .png, or in a .html page that needs no other file.

        Raises:
          ValueError: for another ending, a folder that does not exist, or if matplotlib (for
            .html also jinja2) is not installed.
        """
        from siglip_jax.explain.drawing import write

        write(self, Path(path))

    def __repr__(self) -> str:
        """A line for each label."""
        rows, columns = self.grid
        lines = [f"Explanation by {self.method} over {rows} x {columns} patches:"]
        for index, label in enumerate(self.labels):
            row, column = self.peak(index)
            lines.append(
                f"  {label}: logit {self.logits[index]:.2f}, peak in row {row}, column {column}"
            )
        return "\n".join(lines)
