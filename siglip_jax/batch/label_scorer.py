"""Scores of a column of images with labels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from siglip_jax.batch.columns import Columns
from siglip_jax.batch.embedders import BatchCallable, spread
from siglip_jax.batch.items import image_items
from siglip_jax.classifier import Classifier
from siglip_jax.data.columns import IMAGE_COLUMNS

if TYPE_CHECKING:
    from siglip_jax.scoring import Scores
    from siglip_jax.scoring.rows import Rows


class LabelScorer(BatchCallable):
    """Scores a column of images with labels; batches, errors and options as `ImageEmbedder`.

    Adds `logits` and `probabilities` (n, labels), float32, in the order of the labels; with
    `top` they are those of the best labels, best first, which `labels` names. The numbers of an
    image that cannot be read are NaN, and it has no labels. A regression has logits only.

    Args:
      labels: texts; without any, a model with a classifier scores its own classes.
      templates: as for `Scorer.score`; default: the labels as they are.
      top: how many of the best labels to give; default: all, unsorted.

    Raises:
      ValueError: as `ImageEmbedder`; if `labels` is a string, or `top` more than there are.

    >>> scorer = LabelScorer("siglip_emoji", ["brown circle", "a cat"], top=1, batch_size=1)
    >>> made = scorer({"image": [np.zeros((9, 9, 3), np.uint8)]})
    >>> made["labels"], made["logits"].shape, made["probabilities"].shape, made["error"]
    ([['a cat']], (1, 1), (1, 1), [''])
    """

    _LISTS = ("labels",)

    def __init__(
        self,
        model: Any,
        labels: Sequence[str] = (),
        *,
        templates: Sequence[str] | None = None,
        top: int | None = None,
        image_column: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        for name, value in (("labels", labels), ("templates", templates)):
            if isinstance(value, str):
                raise ValueError(f"{name} must be a list of strings, got the string {value!r}")
        if templates is not None and not labels:
            raise ValueError("templates are for labels, and there are none")
        if top is not None and not 1 <= top <= (len(labels) or top):
            raise ValueError(f"top must be from 1 to {len(labels) or 'the labels'}, got {top}")
        self._labels, self._top, self._image_column = tuple(labels), top, image_column
        self._templates = None if templates is None else tuple(templates)

    def made(self, columns: Columns) -> dict[str, Any]:
        from siglip_jax.scoring.prompts import PLAIN
        from siglip_jax.scoring.scores import Scores

        values = columns.values(columns.chosen("image", self._image_column, IMAGE_COLUMNS))
        scorer, items = self.load(), image_items(values)
        if self._labels:  # which may be wrong, before the images
            ztxt = scorer.embed_labels(self._labels, self._templates or PLAIN)
            z, rows = self._rows(items)
            scores = Scores(scorer.logits(z, ztxt), self._labels)
        else:
            logits, rows = self._rows(items, classes=True)
            found = cast(Classifier, scorer.classifier)
            scores = Scores(logits, found.labels, found.activation)
        return self._columns(scores, rows) | self._errors(rows)

    @property
    def _needs_texts(self) -> bool:
        return bool(self._labels)

    def _columns(self, scores: "Scores", rows: "Rows") -> dict[str, Any]:
        numbers = {"logits": scores.logits}
        if scores.activation is not None:
            numbers["probabilities"] = scores.probabilities
        if self._top is None:
            return {name: spread(values, rows) for name, values in numbers.items()}
        order = scores.ranking(self._top)
        best = iter(np.array(scores.labels, object)[order].tolist())
        labels = [[] if item.error else next(best) for item in rows.items]
        taken = {name: np.take_along_axis(x, order, axis=1) for name, x in numbers.items()}
        return {"labels": labels} | {name: spread(x, rows) for name, x in taken.items()}
