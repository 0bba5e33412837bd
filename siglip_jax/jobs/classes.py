"""What a score job stores of images whose model has classes of its own."""

import numpy as np

from siglip_jax.classifier import Classifier
from siglip_jax.scoring.scores import Scores


class Classes:
    """The classes of a job, in the place of `Labels`.

    Args:
      top: how many of the best to store; None for the probabilities of all.
    """

    def __init__(self, classifier: Classifier, top: int | None) -> None:
        self._classifier, self._top = classifier, top
        self._names = np.array(classifier.labels, object)

    def computed(self, logits: np.ndarray) -> dict[str, np.ndarray]:
        """What is stored of images with logits (n, classes)."""
        found = Scores(logits, self._classifier.labels, self._classifier.activation)
        if self._top is None:
            return {"probabilities": found.probabilities}
        best = found.ranking(self._top)
        return {
            "labels": self._names[best],
            "probabilities": np.take_along_axis(found.probabilities, best, axis=1),
            "logits": np.take_along_axis(logits, best, axis=1),
        }
