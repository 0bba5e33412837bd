"""What a job is asked to do, checked."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from siglip_jax.calibration import Calibration
from siglip_jax.classifier import Classifier
from siglip_jax.config import Layer, Siglip, Tower, check_image_output
from siglip_jax.data.failures import SettingError
from siglip_jax.messages import choose
from siglip_jax.scoring.prompts import PLAIN, check_labels, check_templates

# Every probability of an image is written up to here; above, the best of them.
ALL_LABELS = 4096

# What the files of jobs have, and `vector`, as an export to LanceDB calls the embedding.
OWN_COLUMNS = ("key", "image_path", "embedding", "features", "labels", "probabilities", "logits")
OWN_COLUMNS += ("logit", "probability", "accepted", "width", "height", "grid_rows", "grid_columns")
OWN_COLUMNS += ("error", "stamp", "vector")

_CHOICES = {
    "kind": ("embed", "score"),
    "what": ("images", "texts", "pairs"),
    "format": ("parquet", "npy"),
    "store": ("float32", "float16", "bfloat16"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to compute, and how to store it.

    Attributes:
      kind: "embed", or "score" (pictures with labels, or pairs with each other).
      what: "images", "texts" or "pairs".
      format: "parquet", or "npy", the layout of clip-retrieval and autofaiss.
      store: type of what is stored; "bfloat16" is for patches.
      layer: of an embed job on images: patches of this layer in place of embeddings
        (`siglip_jax.config.check_layer`).
      labels, templates: of a score job on images.
      classifier: of the model, whose own classes are scored in place of labels.
      top: store the best labels only.
      calibration: of these labels, for the probabilities.
      threshold: a probability; labels that reach it, or else the calibration's thresholds, are
        stored as `accepted`, of `top` the best.
      keep: columns that items carry along from the source, with their types in pyarrow.

    Raises:
      ValueError: for what cannot be combined or is no choice.
    """

    kind: str
    what: str = "images"
    format: str = "parquet"
    store: str = "float32"
    layer: Layer | None = None
    labels: tuple[str, ...] = ()
    templates: tuple[str, ...] = PLAIN
    top: int | None = None
    classifier: Classifier | None = None
    calibration: Calibration | None = None
    threshold: float | None = None
    keep: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            choose(name, getattr(self, name), choices)
        if self.kind == "embed" and self.what == "pairs":
            raise ValueError("a job embeds images or texts; pairs are scored")
        if self.kind == "score" and self.what == "texts":
            raise ValueError("a job scores images with labels, or pairs; texts are embedded")
        if self.kind == "score" and self.format == "npy":
            raise ValueError("scores are stored as parquet; npy is for embeddings")
        if self.layer is not None and (self.kind, self.what) != ("embed", "images"):
            raise ValueError("only images have patches; texts are embedded, and pairs scored")
        if self.store == "bfloat16" and self.layer is None:
            raise SettingError(
                "bfloat16 is for patches; of embeddings, which have unit norm, float16 is as "
                "large and eight times as exact",
                "store",
                "leave out {}",
                "bfloat16",
            )
        if self.calibration is not None or self.threshold is not None:
            self._check_calibration()
        if self.classifier is not None:
            if self.labels or (self.kind, self.what) != ("score", "images"):
                raise ValueError(
                    "a classifier scores images with its own classes; leave out labels"
                )
            self._check_top(len(self.classifier.labels))
        elif self.kind == "score" and self.what == "images":
            self._check_labels()
        elif self.labels or self.top:
            raise ValueError("labels are for scoring images; leave them out")
        if own := [name for name in self.keep if name in self._own_columns()]:
            raise SettingError(
                f"{' and '.join(own)}: a job has {'columns' if len(own) > 1 else 'a column'} of "
                f"{'these names' if len(own) > 1 else 'this name'} itself",
                "keep",
                "leave {} out of {{}}".format("them" if len(own) > 1 else "it"),
            )

    def _own_columns(self) -> tuple[str, ...]:
        """Names that no kept column may have; of images the text is no column of the job."""
        if self.what == "images":
            return OWN_COLUMNS
        return (*OWN_COLUMNS, "text", *(["caption"] if self.format == "npy" else []))

    def _check_calibration(self) -> None:
        if not self.labels:
            raise ValueError("calibrations and thresholds are for labels; leave them out")
        if self.calibration is None:
            return
        self.calibration.check_texts(self.labels, self.templates)
        if self.top is not None and self.calibration.method == "softmax":
            raise ValueError("a softmax needs the scores of all labels; leave out top")

    def _check_labels(self) -> None:
        check_labels(self.labels)
        check_templates(self.templates)
        self._check_top(len(self.labels))

    def _check_top(self, n: int) -> None:
        if self.top is None and n > ALL_LABELS:
            raise ValueError(
                f"{n:,} labels are as many numbers an image, more than {ALL_LABELS:,}; "
                "ask for the best of them only, with top"
            )
        if self.top is not None and not 1 <= self.top <= n:
            raise ValueError(f"top must lie in 1..{n}, the number of labels, got {self.top}")

    @property
    def towers(self) -> tuple[Tower, ...]:
        """Those of the model that it takes."""
        if self.classifier is not None:
            return ("image",)
        if self.kind == "score":
            return ("image", "text")
        return ("text",) if self.what == "texts" else ("image",)

    def check(self, config: Siglip, name: str) -> None:
        """Raises a ValueError unless a model, called `name`, can do it."""
        config.needs(*self.towers, what="scores" if self.kind == "score" else self.what, name=name)
        if "image" in self.towers:
            check_image_output(self.layer, config, name)

    def describe(self) -> dict[str, Any]:
        """The job as plain JSON types; many labels only by their digest."""
        plain: dict[str, Any] = {"kind": self.kind, "what": self.what, "format": self.format}
        # Left out as it was before there were any.
        if self.keep:
            plain |= {"keep": {name: str(kind) for name, kind in self.keep.items()}}
        if self.kind == "embed":
            # Left out as it was before there were layers.
            layer = {} if self.layer is None else {"layer": self.layer}
            return plain | {"store": self.store, **layer}
        if self.what == "pairs":
            return plain
        if self.classifier is not None:
            about = {"classifier": self.classifier.digest(), "top": self.top}
            return plain | about | {"labels": list(self.classifier.labels)}
        # Left out as it was before there were any.
        made = {} if self.calibration is None else {"calibration": self.calibration.digest()}
        made |= {} if self.threshold is None else {"threshold": self.threshold}
        return plain | {
            "top": self.top,
            "templates": list(self.templates),
            "count": len(self.labels),
            "digest": labels_digest(self.labels),
            "labels": list(self.labels) if len(self.labels) <= ALL_LABELS else None,
            **made,
        }


def labels_digest(labels: Sequence[str]) -> str:
    """A short digest of strings in their order.

    >>> labels_digest(["a", "b"]) == labels_digest(["ab"])
    False
    """
    return hashlib.sha256(json.dumps(list(labels)).encode()).hexdigest()[:16]
