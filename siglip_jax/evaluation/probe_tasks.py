"""Tasks of images of classes that are learnt from other images: probes of frozen embeddings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from siglip_jax.evaluation.few_shot import PENALTY, SEEDS, SHOTS, few_shot_accuracy
from siglip_jax.evaluation.labels import class_labels, refuse_empty_classes
from siglip_jax.evaluation.probes import (
    HELD_OUT,
    NEIGHBOURS,
    STRENGTHS,
    TEMPERATURE,
    Probe,
    linear_probe,
    neighbour_probe,
)
from siglip_jax.evaluation.task import Encode, Images, Measured

Captions = Sequence[Sequence[str]]


class _Probe:
    """What the probes share: images to test with, and after them images to learn from.

    Args:
      captions: of each image its class, those to test with first.
      tests: how many these are.
      classes: names; default: the different captions of the images to learn from.
      source: what messages call the classes.

    Raises:
      ValueError: as `class_labels`; if a class has no image to learn from.
    """

    def __init__(
        self,
        captions: Captions,
        tests: int,
        classes: Sequence[str] | None = None,
        *,
        source: str = "the classes",
    ) -> None:
        if not 0 < tests < len(captions):
            raise ValueError("there must be images to learn from, and images to test with")
        learnt = list(dict.fromkeys(own[0] for own in captions[tests:] if own))
        unknown = sorted({own[0] for own in captions[:tests] if own} - set(learnt))
        if classes is None and unknown:
            raise ValueError(
                f"{len(unknown):,} classes of the test data have no image to learn from, such as "
                f"{unknown[0]!r}"
            )
        self._tests, self._source = tests, source
        self.classes, labels = class_labels(captions, classes or learnt, source=source)
        self._labels = labels[:, 0]
        refuse_empty_classes(self.classes, self._labels[tests:], "an image to learn from", source)

    text_count = 0
    # From the embeddings and labels of `_parts`, and the options of a probe, to what it found.
    _probe: Callable[..., Probe]
    _options: Mapping[str, Any]

    def measure(
        self, images: Images, encode: Encode | None = None, mesh: Mesh | None = None
    ) -> Measured:
        """What is found, of the images that can be read; neither texts nor a mesh are needed."""
        parts, facts = self._parts(images)
        found = self._probe(*parts, **self._options)
        return Measured(found.metrics, facts | {"probe": found.settings})

    def _parts(self, images: Images) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
        """Embeddings and labels to learn from and to test with; how many there are."""
        test = images.good < self._tests
        labels = self._labels[images.good]
        if not test.any():
            raise ValueError("no image of the test data can be read")
        refuse_empty_classes(
            self.classes, labels[~test], "an image to learn from that can be read", self._source
        )
        parts = images.zimg[~test], labels[~test], images.zimg[test], labels[test]
        counts = {"images": int(test.sum()), "train_images": int((~test).sum())}
        return parts, counts | {"classes": len(self.classes)}


class LinearProbe(_Probe):
    """Logistic regression on frozen embeddings: `linear_probe`.

    Args:
      captions, tests, classes, source: images to test with come first; `tests` is their number.
      strengths, held_out, seed: as `linear_probe`.

    Raises:
      ValueError: as `class_labels`; if a class has no image to learn from.

    >>> task = LinearProbe([["cat"], ["cat"], ["cat"], ["dog"], ["dog"]], 1, strengths=[1.0])
    >>> z = np.float32([[1, 0], [1, 0], [0.9, 0], [0, 1], [0, 0.9]])
    >>> task.measure(Images(z, np.arange(5))).metrics["accuracy"]
    1.0
    """

    _probe = staticmethod(linear_probe)

    def __init__(
        self,
        captions: Captions,
        tests: int,
        classes: Sequence[str] | None = None,
        *,
        source: str = "the classes",
        strengths: Sequence[float] = STRENGTHS,
        held_out: float = HELD_OUT,
        seed: int = 0,
    ) -> None:
        super().__init__(captions, tests, classes, source=source)
        self._options = {"strengths": strengths, "held_out": held_out, "seed": seed}


class NeighbourProbe(_Probe):
    """A vote of the nearest images to learn from: `neighbour_probe`.

    Args:
      captions, tests, classes, source: as `LinearProbe`.
      neighbours, temperature: as `neighbour_probe`.

    Raises:
      ValueError: as `LinearProbe`.

    >>> task = NeighbourProbe([["cat"], ["cat"], ["dog"]], 1, neighbours=1)
    >>> task.measure(Images(np.float32([[1, 0], [1, 0], [0, 1]]), np.arange(3))).metrics
    {'accuracy': 1.0, 'mean_per_class_recall': 1.0}
    """

    _probe = staticmethod(neighbour_probe)

    def __init__(
        self,
        captions: Captions,
        tests: int,
        classes: Sequence[str] | None = None,
        *,
        source: str = "the classes",
        neighbours: int = NEIGHBOURS,
        temperature: float = TEMPERATURE,
    ) -> None:
        super().__init__(captions, tests, classes, source=source)
        self._options = {"neighbours": neighbours, "temperature": temperature}


class FewShot(_Probe):
    """big_vision's few-shot linear probe, "10-shot" in the papers: `few_shot_accuracy`.

    The metric is the mean over the seeds; each one's is among the facts.

    Args:
      captions, tests, classes, source: as `LinearProbe`.
      shots, seeds, penalty: as `few_shot_accuracy`.

    Raises:
      ValueError: as `LinearProbe`; if a class has fewer images to learn from than `shots`.

    >>> task = FewShot([["cat"], ["cat"], ["dog"]], 1, shots=1)
    >>> task.measure(Images(np.float32([[1, 0], [1, 0], [0, 1]]), np.arange(3))).metrics
    {'accuracy': 1.0}
    """

    def __init__(
        self,
        captions: Captions,
        tests: int,
        classes: Sequence[str] | None = None,
        *,
        source: str = "the classes",
        shots: int = SHOTS,
        seeds: int = SEEDS,
        penalty: float = PENALTY,
    ) -> None:
        super().__init__(captions, tests, classes, source=source)
        self._options = {"shots": shots, "seeds": seeds, "penalty": penalty}
        self._refuse_few(self._labels[tests:])

    def measure(
        self, images: Images, encode: Encode | None = None, mesh: Mesh | None = None
    ) -> Measured:
        parts, facts = self._parts(images)
        self._refuse_few(parts[1])
        found = few_shot_accuracy(*parts, **self._options)
        facts["probe"] = {**self._options, "accuracy_by_seed": found}
        return Measured({"accuracy": float(np.mean(found))}, facts)

    def _refuse_few(self, labels: np.ndarray) -> None:
        shots = self._options["shots"]
        counts = np.bincount(labels, minlength=len(self.classes))
        if (few := np.flatnonzero(counts < shots)).size:
            raise ValueError(
                f"{self._source}: {few.size:,} of {len(self.classes):,} classes have fewer than "
                f"{shots} images to learn from, such as {self.classes[few[0]]!r} with "
                f"{counts[few[0]]}"
            )
