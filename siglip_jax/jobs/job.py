"""What a job is asked to do, checked."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from siglip_jax.config import Tower
from siglip_jax.messages import choose
from siglip_jax.scoring.prompts import PLAIN, check_labels, check_templates

# Every probability of an image is written up to here; above, the best of them.
ALL_LABELS = 4096

_CHOICES = {
    "kind": ("embed", "score"),
    "what": ("images", "texts", "pairs"),
    "format": ("parquet", "npy"),
    "store": ("float32", "float16"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to compute, and how to store it.

    Attributes:
      kind: "embed", or "score" (pictures with labels, or pairs with each other).
      what: "images", "texts" or "pairs".
      format: "parquet", or "npy", the layout of clip-retrieval and autofaiss.
      store: type of stored embeddings.
      labels, templates: of a score job on images.
      top: store the best labels only.

    Raises:
      ValueError: for what cannot be combined or is no choice.
    """

    kind: str
    what: str = "images"
    format: str = "parquet"
    store: str = "float32"
    labels: tuple[str, ...] = ()
    templates: tuple[str, ...] = PLAIN
    top: int | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            choose(name, getattr(self, name), choices)
        if self.kind == "embed" and self.what == "pairs":
            raise ValueError("a job embeds images or texts; pairs are scored")
        if self.kind == "score" and self.what == "texts":
            raise ValueError("a job scores images with labels, or pairs; texts are embedded")
        if self.kind == "score" and self.format == "npy":
            raise ValueError("scores are stored as parquet; npy is for embeddings")
        if self.kind == "score" and self.what == "images":
            self._check_labels()
        elif self.labels or self.top:
            raise ValueError("labels are for scoring images; leave them out")

    def _check_labels(self) -> None:
        check_labels(self.labels)
        check_templates(self.templates)
        n = len(self.labels)
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
        if self.kind == "score":
            return ("image", "text")
        return ("text",) if self.what == "texts" else ("image",)

    def describe(self) -> dict[str, Any]:
        """The job as plain JSON types; many labels only by their digest."""
        plain: dict[str, Any] = {"kind": self.kind, "what": self.what, "format": self.format}
        if self.kind == "embed":
            return plain | {"store": self.store}
        if self.what == "pairs":
            return plain
        return plain | {
            "top": self.top,
            "templates": list(self.templates),
            "count": len(self.labels),
            "digest": labels_digest(self.labels),
            "labels": list(self.labels) if len(self.labels) <= ALL_LABELS else None,
        }


def labels_digest(labels: Sequence[str]) -> str:
    """A short digest of strings in their order.

    >>> labels_digest(["a", "b"]) == labels_digest(["ab"])
    False
    """
    return hashlib.sha256(json.dumps(list(labels)).encode()).hexdigest()[:16]
