"""What scoring returns: logits, probabilities, ranking."""

import dataclasses
import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from siglip_jax.messages import optional_package

_SHOWN = 5  # images that a printed result shows


def sigmoid(logits: np.ndarray | np.floating[Any]) -> np.ndarray:
    """Probabilities of logits of any shape, float32.

    >>> sigmoid(np.float32([0, -1000, 1000])).tolist()
    [0.5, 0.0, 1.0]
    """
    exp = np.exp(-np.abs(logits))  # never overflows
    return np.where(logits >= 0, 1 / (1 + exp), exp / (1 + exp)).astype(np.float32)


class LabelScore(NamedTuple):
    """One label of a ranking."""

    label: str
    probability: float
    logit: float


@dataclasses.dataclass(frozen=True, repr=False)
class Scores:
    """Scores of every image with every label.

    Attributes:
      logits: (images, labels) float32, `exp(t) · zimg · ztxt + b`.
      labels: the labels, in the order of the columns.

    >>> scores = Scores(np.float32([[-1, 2, 0]]), ("cat", "dog", "donut"))
    >>> scores.ranking(2).tolist(), scores.top(1)[0][0].label
    ([[1, 2]], 'dog')
    """

    logits: np.ndarray
    labels: tuple[str, ...]

    @property
    def probabilities(self) -> np.ndarray:
        """(images, labels) float32 sigmoid of the logits.

        Each is the probability that this label fits this image, whatever the
        other labels are: rows do not sum to one.
        """
        return sigmoid(self.logits)

    def to_pandas(self, images: Sequence[object] | None = None) -> Any:
        """Probabilities as a `pandas.DataFrame`: a row an image, a column a label.

        Args:
          images: names of the rows; default: numbers from 0.

        Raises:
          ValueError: if pandas is not installed, or there are more or fewer names than images.
        """
        pandas = optional_package("pandas", "pandas")
        if images is not None and len(images) != len(self.logits):
            raise ValueError(f"{len(images)} images for {len(self.logits)} rows of scores")
        return pandas.DataFrame(self.probabilities, index=images, columns=list(self.labels))

    def __repr__(self) -> str:
        images, labels = self.logits.shape
        lines = [f"Scores of {images:,} images with {labels:,} labels; the best of each:"]
        for number, best in enumerate(self._shown()):
            hits = ", ".join(f"{hit.label} {hit.probability:.1%}" for hit in best)
            lines.append(f"  {number}: {hits}")
        return "\n".join([*lines, *(["  ..."] if images > _SHOWN else [])])

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        rows = "".join(
            f"<tr><td>{number}</td>"
            + "".join(f"<td>{html.escape(h.label)} {h.probability:.1%}</td>" for h in best)
            + "</tr>"
            for number, best in enumerate(self._shown())
        )
        images, labels = self.logits.shape
        return (
            f"<p>Scores of {images:,} images with {labels:,} labels; the best of each</p>"
            f"<table>{rows}</table>"
        )

    def _shown(self) -> list[list[LabelScore]]:
        return Scores(self.logits[:_SHOWN], self.labels).top(3)

    def ranking(self, k: int | None = None) -> np.ndarray:
        """(images, k) indices of labels, best first; ties in the order of the labels."""
        order = np.argsort(-self.logits, axis=1, kind="stable")
        return order if k is None else order[:, :k]

    def top(self, k: int | None = None) -> list[list[LabelScore]]:
        """For each image its `k` best labels (default: all), best first."""
        return [
            [LabelScore(self.labels[j], float(p[j]), float(row[j])) for j in order]
            for row, p, order in zip(self.logits, self.probabilities, self.ranking(k), strict=True)
        ]
