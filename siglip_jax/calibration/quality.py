"""How good probabilities are: log-loss, calibration error, AUC."""

import dataclasses

import numpy as np

BINS = 15


@dataclasses.dataclass(frozen=True)
class Quality:
    """Of probabilities (n, labels), given which are right.

    Attributes:
      nll: log-loss of an image, over all its labels; of a softmax that of its one label.
      ece: expected calibration error, in 15 bins of as many probabilities each.
      auc: how often a right label's probability is above a wrong one's, of all pairs of them.
      row_sum: of the probabilities of an image, on average.
    """

    nll: float
    ece: float
    auc: float
    row_sum: float


def quality(probabilities: np.ndarray, targets: np.ndarray, *, softmax: bool = False) -> Quality:
    """Of probabilities (n, labels) with targets (n, labels) bool."""
    return Quality(
        nll=log_loss(probabilities, targets, softmax=softmax),
        ece=calibration_error(probabilities, targets),
        auc=auc(probabilities, targets),
        row_sum=float(probabilities.sum(axis=1).mean()),
    )


def log_loss(probabilities: np.ndarray, targets: np.ndarray, *, softmax: bool = False) -> float:
    """Log-loss of an image, the sum over its labels; of a softmax that of its one label.

    >>> log_loss(np.array([[0.5, 0.5]]), np.array([[True, False]])).__round__(3)
    1.386
    """
    # 1 - p of a p near 1 is rounded; a p of 1 for a wrong label is no infinite loss.
    right = np.log(np.maximum(probabilities, 1e-300))
    wrong = 0.0 if softmax else np.log(np.maximum(1 - probabilities, 1e-16))
    return float(-np.where(targets, right, wrong).sum(axis=1).mean())


def bins(probabilities: np.ndarray, targets: np.ndarray, count: int = BINS) -> np.ndarray:
    """(bins, 3): mean probability, share that is right, number; of equally many each."""
    p, right = probabilities.ravel(), targets.ravel()
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, count) if len(part)]
    return np.array([(p[part].mean(), right[part].mean(), len(part)) for part in parts])


def calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """ECE in 15 bins of as many probabilities each.

    >>> calibration_error(np.full((1000, 1), 0.3), np.arange(1000).reshape(-1, 1) % 10 < 5).round(6)
    np.float64(0.2)
    """
    said, right, count = bins(probabilities, targets).T
    return np.average(np.abs(said - right), weights=count)


def auc(scores: np.ndarray, targets: np.ndarray) -> float:
    """How often a right label is scored above a wrong one, of all images and labels."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(targets.ravel(), scores.ravel()))


def auc_interval(area: float, positives: int, negatives: int) -> tuple[float, float]:
    """95 % confidence of an AUC, after Hanley and McNeil (1982)."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (one - area**2)
    variance = (variance + (negatives - 1) * (two - area**2)) / (positives * negatives)
    reach = 1.96 * np.sqrt(max(variance, 0))
    return max(float(area - reach), 0.0), min(float(area + reach), 1.0)
