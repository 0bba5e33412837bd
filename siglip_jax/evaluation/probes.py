"""How well frozen embeddings tell classes apart: by a linear layer, by the nearest neighbours.

Both by scikit-learn, on the host. The linear probe is CLIP's protocol (arXiv 2103.00020, A.3):
logistic regression by L-BFGS with an L2 penalty that is chosen on a held-out part of the
training data, then fitted again to all of them; features are whitened first, which scales the
penalty to them. The nearest neighbours vote as in arXiv 1805.01978, section 3.4, and DINO: 20 of
them, each with exp(cosine / 0.07).
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from siglip_jax.evaluation.classification import mean_per_class_recall, shares_right
from siglip_jax.evaluation.labelled import Labelled, labelled

# scikit-learn's C, the inverse of the penalty.
STRENGTHS = tuple(float(f"{10.0**power:.3g}") for power in np.arange(-5, 1.01, 0.5))
HELD_OUT = 0.2
NEIGHBOURS = 20
TEMPERATURE = 0.07


class Probe(NamedTuple):
    """What a probe found.

    Attributes:
      metrics: `accuracy`, `top5_accuracy` (of the linear probe) and `mean_per_class_recall` of
        the test data, from 0 to 1.
      settings: what was chosen, as plain JSON types.
      predicted: (m,) the class that each test embedding is taken for.
    """

    metrics: dict[str, float]
    settings: dict[str, Any]
    predicted: np.ndarray


def linear_probe(
    train: Any,
    train_labels: Any,
    test: Any,
    test_labels: Any,
    *,
    strengths: Sequence[float] = STRENGTHS,
    held_out: float = HELD_OUT,
    seed: int = 0,
) -> Probe:
    """Multinomial logistic regression on whitened embeddings.

    Args:
      train, train_labels: (n, d) and (n,) to learn from; labels are classes from 0 on.
      test, test_labels: (m, d) and (m,) to measure with.
      strengths: values of C to choose from; the smallest of equally good ones is taken. One
        alone is taken as it is, and nothing is held out.
      held_out: the share of each class that is held out to choose with, at least one image of
        every class that has several.
      seed: decides which.

    Raises:
      ValueError: as `labelled`; if no class has a second image to hold out; if a fit does not
        converge.

    >>> z = np.float32([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    >>> linear_probe(z, [0, 0, 1, 1], z[1:3], [0, 1], strengths=[1.0]).metrics["accuracy"]
    1.0
    """
    data = labelled(train, train_labels, test, test_labels)
    strengths = sorted(strengths)
    if not strengths or strengths[0] <= 0 or not 0 < held_out < 1:
        raise ValueError("strengths must be above 0, and held_out between 0 and 1")
    settings: dict[str, Any] = {"seed": seed}
    strength = strengths[0]
    if len(strengths) > 1:
        strength, share = _chosen(data, strengths, held_out, seed)
        settings |= {"held_out_accuracy": share}
    scores = _fitted(data.train, data.train_labels, strength).decision_function(data.test)
    return _probe(data, _of_each(scores), settings | {"strength": strength}, ks=(1, 5))


def neighbour_probe(
    train: Any,
    train_labels: Any,
    test: Any,
    test_labels: Any,
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Probe:
    """A vote of the nearest training embeddings, each weighing exp(cosine / temperature).

    Args:
      train, train_labels, test, test_labels: as `linear_probe`.
      neighbours: how many vote; all, if there are fewer.
      temperature: the lower, the more the nearest decide.

    Raises:
      ValueError: as `labelled`, or if a setting is not positive.

    >>> z = np.float32([[1, 0], [0.9, 0.1], [0, 1]])
    >>> neighbour_probe(z, [0, 0, 1], z[:1], [0], neighbours=1).predicted
    array([0])
    """
    from sklearn.neighbors import KNeighborsClassifier

    data = labelled(train, train_labels, test, test_labels)
    if neighbours < 1 or temperature <= 0:
        raise ValueError(
            f"neighbours must be at least 1 and temperature above 0, got {neighbours} and "
            f"{temperature}"
        )
    neighbours = min(neighbours, len(data.train))

    def weights(distance: np.ndarray) -> np.ndarray:
        # Less the nearest's exponent, the same for all votes on an image: none overflows.
        return np.exp((distance.min(axis=1, keepdims=True) - distance) / temperature)

    # scikit-learn's annotation of `weights` knows strings only.
    options: dict[str, Any] = {"algorithm": "brute", "metric": "cosine", "weights": weights}
    vote = KNeighborsClassifier(neighbours, **options).fit(data.train, data.train_labels)
    settings = {"neighbours": neighbours, "temperature": temperature}
    return _probe(data, vote.predict_proba(data.test), settings, ks=(1,))


def _probe(
    data: Labelled, scores: np.ndarray, settings: dict[str, Any], ks: Sequence[int]
) -> Probe:
    order = np.argsort(-scores, axis=1, kind="stable")[:, : max(ks)]
    metrics = shares_right(order, data.test_labels, ks)
    metrics["mean_per_class_recall"] = mean_per_class_recall(order[:, 0], data.test_labels)
    return Probe(metrics, settings, order[:, 0])


def _of_each(scores: np.ndarray) -> np.ndarray:
    """Scores (m, classes); scikit-learn has one column for two classes."""
    return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores


def _fitted(z: np.ndarray, labels: np.ndarray, strength: float) -> Any:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return model.fit(z, labels)
        except ConvergenceWarning as error:
            raise ValueError(
                f"the linear probe of strength {strength:g} does not converge; leave the larger "
                "strengths out"
            ) from error


def _chosen(
    data: Labelled, strengths: Sequence[float], held_out: float, seed: int
) -> tuple[float, float]:
    """The strength that is best on what is held out, and how good it is there."""
    out = _held_out(data.train_labels, held_out, seed)
    fit = functools.partial(_fitted, data.train[~out], data.train_labels[~out])
    z, labels = data.train[out], data.train_labels[out]
    shares = [float((fit(strength).predict(z) == labels).mean()) for strength in strengths]
    best = int(np.argmax(shares))
    return strengths[best], shares[best]


def _held_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which training images (n,) are held out: of every class at least one stays."""
    rng, out = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for of_class in range(labels.max() + 1):
        own = rng.permutation(np.flatnonzero(labels == of_class))
        out[own[: min(max(round(share * len(own)), 1), len(own) - 1)]] = True
    if not out.any():
        raise ValueError(
            "every class has one training image alone, so that none can be held out to choose "
            "the strength of the penalty; give one strength"
        )
    return out
