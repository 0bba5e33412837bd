"""What scoring returns: logits, probabilities, ranking."""

import dataclasses
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from siglip_jax.classifier import Activation
from siglip_jax.messages import counted, optional_package

if TYPE_CHECKING:
    from siglip_jax.calibration import Calibration

_SHOWN = 5  # images that a printed result shows


def sigmoid(logits: np.ndarray | np.floating[Any]) -> np.ndarray:
    """Probabilities of logits of any shape, float32.

    >>> sigmoid(np.float32([0, -1000, 1000])).tolist()
    [0.5, 0.0, 1.0]
    """
    exp = np.exp(-np.abs(logits))  # never overflows
    return np.where(logits >= 0, 1 / (1 + exp), exp / (1 + exp)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits (..., classes), float32, that sum to one.

    >>> softmax(np.float32([0, 0])).tolist()
    [0.5, 0.5]
    """
    exp = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return (exp / exp.sum(axis=-1, keepdims=True)).astype(np.float32)


def probabilities(logits: np.ndarray, activation: Activation) -> np.ndarray:
    """Probabilities (..., classes) of logits, as the model was trained to be read.

    Raises:
      ValueError: of a regression, which has none.
    """
    if activation is None:
        raise ValueError("this model is a regression: it has outputs (logits), no probabilities")
    return softmax(logits) if activation == "softmax" else sigmoid(logits)


def _percent(probability: float) -> str:
    """To a tenth of a percent; what is less by its first digit, so that it is not nothing.

    >>> [_percent(p) for p in (0.123, 0.0005, 0.00005, 1e-9)]
    ['12.3%', '0.1%', '0.005%', '<0.0001%']
    """
    if probability >= 0.0005:
        return f"{probability:.1%}"
    shown = np.format_float_positional(100 * probability, 1, fractional=False)
    return f"{shown}%" if probability >= 1e-6 else "<0.0001%"


def _size(logits: np.ndarray) -> str:
    images, labels = logits.shape
    return f"{counted(images, 'image')} with {counted(labels, 'label')}"


class LabelScore(NamedTuple):
    """One label of a ranking."""

    label: str
    probability: float
    logit: float


@dataclasses.dataclass(frozen=True, repr=False)
class Scores:
    """Scores of every image with every label.

    Attributes:
      logits: (images, labels) float32: `exp(t) · zimg · ztxt + b`, or a classifier's.
      labels: the labels, in the order of the columns.
      activation: what makes probabilities of logits: "sigmoid", but of a classifier whose
        classes exclude each other "softmax", and of a regression None.
      calibration: what makes probabilities of logits instead (`calibrated`).

    >>> scores = Scores(np.float32([[-1, 2, 0]]), ("cat", "dog", "donut"))
    >>> scores.ranking(2).tolist(), scores.top(1)[0][0].label
    ([[1, 2]], 'dog')
    """

    logits: np.ndarray
    labels: tuple[str, ...]
    activation: Activation = "sigmoid"
    calibration: "Calibration | None" = None

    @property
    def probabilities(self) -> np.ndarray:
        """(images, labels) float32 sigmoid of the logits, or float64 of a calibration.

        Each is the probability that this label fits this image, whatever the
        other labels are: rows do not sum to one, but with a softmax.

        Raises:
          ValueError: of a regression.
        """
        if self.calibration is not None:
            return self.calibration.probabilities(self.logits)
        return probabilities(self.logits, self.activation)

    def calibrated(self, calibration: "Calibration") -> "Scores":
        """The same scores with the probabilities of a calibration; the order does not change.

        Scores do not know of which model they are: `Calibration.check` compares that.

        Raises:
          ValueError: if it is of other labels, or these are a classifier's own classes.

        >>> from siglip_jax.calibration import Calibration, Identity
        >>> made = Calibration(identity=Identity("m", "sha256:1", {}), labels=("cat", "dog"),
        ...                    method="expect", n=9, bias=np.array([2.0, 2.0]))
        >>> scores = Scores(np.float32([[-2, -9]]), ("cat", "dog")).calibrated(made)
        >>> scores, scores.calibrated(made.with_threshold("0.7")).accepted()
        (Scores of 1 image with 2 labels; the best of each:
          0: cat 50.0%, dog 0.1%, [[]])
        """
        if self.activation != "sigmoid":
            raise ValueError("a calibration is of labels; a model's own classes have none")
        calibration.check_labels(self.labels)
        return dataclasses.replace(self, calibration=calibration)

    def accepted(self, threshold: float | None = None) -> list[list[LabelScore]]:
        """For each image the labels that reach their threshold, best first; [] is none of these.

        Args:
          threshold: a probability, for all labels; default: the calibration's thresholds.

        Raises:
          ValueError: if there is no threshold.
        """
        limits: Any = threshold
        if limits is None and self.calibration is not None:
            limits = self.calibration.thresholds
        if limits is None:
            raise ValueError(
                "there is no threshold; give one, or a calibration's, as with_threshold('f1')"
            )
        reached = self.probabilities >= limits
        return [
            [hit for j, hit in zip(order, hits, strict=True) if row[j]]
            for row, order, hits in zip(reached, self.ranking(), self.top(), strict=True)
        ]

    def to_pandas(self, images: Sequence[object] | None = None) -> Any:
        """Probabilities as a `pandas.DataFrame`: a row an image, a column a label.

        Args:
          images: names of the rows; default: numbers from 0.

        Raises:
          ValueError: if pandas is not installed, or there are more or fewer names than images.
        """
        pandas = optional_package("pandas", "pandas")
        if images is not None and len(images) != len(self.logits):
            rows = counted(len(self.logits), "row")
            raise ValueError(f"{counted(len(images), 'image')} for {rows} of scores")
        return pandas.DataFrame(self.probabilities, index=images, columns=list(self.labels))

    def __repr__(self) -> str:
        lines = [f"Scores of {_size(self.logits)}; the best of each:"]
        for number, best in enumerate(self._shown()):
            hits = ", ".join(map(self._said, best))
            lines.append(f"  {number}: {hits}")
        return "\n".join([*lines, *(["  ..."] if len(self.logits) > _SHOWN else [])])

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        rows = "".join(
            f"<tr><td>{number}</td>"
            + "".join(f"<td>{html.escape(self._said(hit))}</td>" for hit in best)
            + "</tr>"
            for number, best in enumerate(self._shown())
        )
        return f"<p>Scores of {_size(self.logits)}; the best of each</p><table>{rows}</table>"

    def _shown(self) -> list[list[LabelScore]]:
        # A regression has no probabilities, and its outputs are shown as they are.
        shown = dataclasses.replace(
            self, logits=self.logits[:_SHOWN], activation=self.activation or "sigmoid"
        )
        return shown.top(3)

    def _said(self, hit: LabelScore) -> str:
        number = f"{hit.logit:.4g}" if self.activation is None else _percent(hit.probability)
        return f"{hit.label} {number}"

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
