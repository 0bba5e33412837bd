"""Tasks of images of classes that texts stand for: one class an image, or several."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from siglip_jax.evaluation.class_names import canonicalize
from siglip_jax.evaluation.classification import (
    class_embeddings,
    mean_per_class_recall,
    nearest_classes,
    shares_right,
)
from siglip_jax.evaluation.labels import class_labels, refuse_empty_classes
from siglip_jax.evaluation.precision import average_precision
from siglip_jax.evaluation.task import Encode, Images, Measured
from siglip_jax.evaluation.templates import CLIP_PAPER
from siglip_jax.scoring.prompts import check_templates

Captions = Sequence[Sequence[str]]


class ZeroShot:
    """Top-1 and top-5 accuracy, and the mean per-class recall where images have one class.

    Args:
      captions: of each image its class, or an index into `classes`.
      classes: names; default: the different captions.
      templates: texts with `{}` for the name.
      canonical: names and templates are canonicalised as big_vision does.
      several: every caption of an image is right, as of ImageNet ReaL.
      source: what messages call the classes.

    Raises:
      ValueError: as `class_labels` and `class_texts`.

    >>> task = ZeroShot([["cat"], ["dog"]], templates=["{}"])
    >>> z = np.eye(2, dtype=np.float32)
    >>> task.measure(Images(z, np.arange(2)), lambda texts: z).metrics
    {'accuracy': 1.0, 'top5_accuracy': 1.0, 'mean_per_class_recall': 1.0}
    """

    def __init__(
        self,
        captions: Captions,
        classes: Sequence[str] | None = None,
        templates: Sequence[str] = CLIP_PAPER,
        *,
        canonical: bool = True,
        several: bool = False,
        source: str = "the classes",
    ) -> None:
        self._templates = check_templates(templates)
        self._canonical = canonical
        self._source = source
        self.classes, self._labels = class_labels(captions, classes, several=several, source=source)

    @property
    def text_count(self) -> int:
        return len(self.classes) * len(self._templates)

    def merged(self) -> list[str]:
        """Names that several classes share once they are canonicalised."""
        if not self._canonical:
            return []
        return [name for name, n in Counter(map(canonicalize, self.classes)).items() if n > 1]

    def measure(self, images: Images, encode: Encode, mesh: Mesh | None = None) -> Measured:
        labels = self._labels[images.good]
        nearest = nearest_classes(images.zimg, self._embedded(encode), mesh=mesh)
        metrics = shares_right(nearest, labels)
        if labels.shape[1] == 1:
            metrics["mean_per_class_recall"] = mean_per_class_recall(nearest[:, 0], labels[:, 0])
        return Measured(metrics, self._facts(labels))

    def _embedded(self, encode: Encode) -> np.ndarray:
        return class_embeddings(
            encode,
            self.classes,
            self._templates,
            canonical=self._canonical,
            aliases="none",  # a caption may well hold a comma
        )

    def _facts(self, labels: np.ndarray) -> dict[str, Any]:
        present = np.unique(labels[labels >= 0])
        return {
            "images": len(labels),
            "classes": len(self.classes),
            "classes_without_images": len(self.classes) - len(present),
            "templates": self._templates,
            "as_written": not self._canonical,
        }


class MultiLabel(ZeroShot):
    """Mean average precision of images that have several classes: `average_precision`.

    Args: as `ZeroShot`; every caption of an image is a class of it.

    Raises:
      ValueError: as `ZeroShot`; if a class has no image.

    >>> task = MultiLabel([["cat", "dog"], ["dog"]], templates=["{}"])
    >>> z = np.eye(2, dtype=np.float32)
    >>> task.measure(Images(z, np.arange(2)), lambda texts: z).metrics
    {'mean_average_precision': 1.0}
    """

    def __init__(
        self,
        captions: Captions,
        classes: Sequence[str] | None = None,
        templates: Sequence[str] = CLIP_PAPER,
        *,
        canonical: bool = True,
        source: str = "the classes",
    ) -> None:
        super().__init__(
            captions, classes, templates, canonical=canonical, several=True, source=source
        )
        refuse_empty_classes(self.classes, self._labels, "an image", source)

    def measure(self, images: Images, encode: Encode, mesh: Mesh | None = None) -> Measured:
        labels = self._labels[images.good]
        refuse_empty_classes(self.classes, labels, "an image that can be read", self._source)
        found = average_precision(images.zimg, self._embedded(encode), labels, mesh=mesh)
        facts = self._facts(labels) | {"labels": int((labels >= 0).sum())}
        facts["average_precision"] = dict(zip(self.classes, map(float, found), strict=True))
        return Measured({"mean_average_precision": float(found.mean())}, facts)
