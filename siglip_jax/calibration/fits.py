"""Scales, biases and curves that fit logits to what is known of their labels.

The likelihood counts every image with every label: log-loss of the sigmoid. Targets of
positives are Platt's (1999), (P + 1)/(P + 2) of P positive examples and not 1: of a few
examples that are all told apart any fit would make certainties. Those of negatives, of which
there are always many, remain 0.
"""

from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_softmax

from siglip_jax.calibration.evidence import Evidence

SCALE_DEVIATION = 0.5  # of the prior on the logarithm of a scale: N(0, 0.5²)
SHRINKAGE = 10  # positive examples for which a label's own bias counts as much as that of all
PLENTY = 300  # positive and negative examples that a curve of any form needs


def expected_bias(logits: np.ndarray, expected: float) -> float:
    """The bias for which the probabilities of an image sum to `expected`, on average.

    Raises:
      ValueError: unless it lies between 0 and the number of labels.
    """
    labels = logits.shape[1]
    if not 0 < expected < labels:
        raise ValueError(
            f"expected a number of labels per image between 0 and {labels:,}, got {expected:g}"
        )
    return _bias(logits, expected * len(logits))


def shared_bias(evidence: Evidence) -> float:
    """The likeliest bias of all labels."""
    positives = int(evidence.known.sum())
    return _bias(evidence.logits, positives * _positive_target(positives))


def label_biases(evidence: Evidence, shared: float) -> np.ndarray:
    """(labels,): each label's likeliest bias, drawn to that of all labels by n/(n + 10).

    Args:
      shared: that of all labels; n is the number of positive examples of a label.
    """
    logits, positives = evidence.logits, evidence.known.sum(axis=0)
    # An image of which nothing is known: the bias is finite if all or none are positive.
    wanted = np.clip(positives, 0.5, len(logits) - 0.5)
    low, high = -logits.max(axis=0) - 50, -logits.min(axis=0) + 50
    for _ in range(80):
        middle = (low + high) / 2
        more = expit(logits + middle).sum(axis=0) > wanted
        low, high = np.where(more, low, middle), np.where(more, middle, high)
    return shared + positives / (positives + SHRINKAGE) * ((low + high) / 2 - shared)


def platt(evidence: Evidence, deviation: float = SCALE_DEVIATION) -> tuple[float, float]:
    """The likeliest scale and bias, with a prior N(0, deviation²) on the scale's logarithm."""
    logits, targets = evidence.logits.ravel(), evidence.known.ravel().astype(np.float64)
    targets = targets * _positive_target(int(targets.sum()))

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        scale = np.exp(at[0])
        scaled = scale * logits + at[1]
        wrong = expit(scaled) - targets
        value = (np.logaddexp(0, scaled) - scaled * targets).sum() + (at[0] / deviation) ** 2 / 2
        slope = scale * (wrong * logits).sum() + at[0] / deviation**2
        return float(value), np.array([slope, wrong.sum()])

    found = minimize(loss, np.array([0.0, shared_bias(evidence)]), jac=True, method="BFGS")
    return float(np.exp(found.x[0])), float(found.x[1])


def isotonic(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest rising curve, as logits (k,) and probabilities (k,).

    Raises:
      ValueError: if there are too few examples for it.
    """
    from sklearn.isotonic import IsotonicRegression

    targets = evidence.known.ravel()
    positives, negatives = int(targets.sum()), int((~targets).sum())
    if min(positives, negatives) < PLENTY:
        raise ValueError(
            f"a curve of any form needs {PLENTY} positive and {PLENTY} negative examples, and here "
            f"are {positives:,} and {negatives:,}; the method platt needs fewer"
        )
    # Logits, and by this class alone: scikit-learn's CalibratedClassifierCV takes what it is
    # given for probabilities or for logits by the kind of classifier (its issue 34312).
    least, most = 1 / (negatives + 2), _positive_target(positives)
    fitted = IsotonicRegression(y_min=least, y_max=most).fit(evidence.logits.ravel(), targets)
    x, first = np.unique(fitted.X_thresholds_, return_index=True)
    return x, np.maximum.accumulate(fitted.y_thresholds_[first])


def softmax_scale(evidence: Evidence, deviation: float = SCALE_DEVIATION) -> float:
    """The likeliest scale of a softmax over the labels, with the prior of `platt`.

    Raises:
      ValueError: unless each image has exactly one label.
    """
    logits, targets = evidence.logits, evidence.known
    counts = targets.sum(axis=1)
    if (counts != 1).any():
        index = int(np.argmax(counts != 1))
        raise ValueError(
            f"a softmax is for images with exactly one label, and image {index} has "
            f"{int(counts[index])}; the other methods take any number"
        )

    def loss(at: np.ndarray) -> float:
        likely = log_softmax(np.exp(at[0]) * logits, axis=1)[targets].sum()
        return float(-likely + (at[0] / deviation) ** 2 / 2)

    return float(np.exp(minimize(loss, np.zeros(1), method="BFGS").x[0]))


def _positive_target(positives: int) -> float:
    return (positives + 1) / (positives + 2)


def _bias(logits: np.ndarray, wanted: float) -> float:
    """The bias for which all probabilities together sum to `wanted`."""
    reach = float(np.abs(logits).max()) + np.log(logits.size) + 50
    found: Any = brentq(lambda bias: expit(logits + bias).sum() - wanted, -reach, reach, xtol=1e-9)
    return found
