"""How good probabilities are, before and after, on images that the fit has not seen."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from siglip_jax.calibration.calibration import Calibration
from siglip_jax.calibration.evidence import Evidence, evidence, refuse_few
from siglip_jax.calibration.fitting import fields, refuse_empty_classes
from siglip_jax.calibration.quality import Quality, auc, auc_interval, quality

if TYPE_CHECKING:
    from siglip_jax.scoring import Scores

_FOLDS = 5
# Below the first an AUC says that labels are not told apart, below the second hardly.
_CHANCE, _HARDLY = 0.6, 0.8
# Positive examples of a label without which its AUC is not spoken of.
_ENOUGH = 10


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """A calibration's worth.

    Attributes:
      images, labels: how many.
      positives: how many labels are right, of all images; None if that is not known.
      before, after: of the model's own probabilities, and of those of calibrations that were
        fitted to other images, by cross-validation; None if no label is known to be right.
      row_sums: before and after, of the images it was fitted to.
      auc_interval: 95 % confidence of the AUC of the model's own scores.
      probabilities: before and after, (n, labels) each, as measured.
      targets: (n, labels), or None.
      words: what to know of it, in sentences.
    """

    images: int
    labels: int
    positives: int | None
    before: Quality | None
    after: Quality | None
    row_sums: tuple[float, float]
    auc_interval: tuple[float, float] | None
    probabilities: tuple[np.ndarray, np.ndarray]
    targets: np.ndarray | None
    words: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """The numbers as plain JSON types."""
        return {
            "images": self.images,
            "labels": self.labels,
            "positives": self.positives,
            "before": self.before and dataclasses.asdict(self.before),
            "after": self.after and dataclasses.asdict(self.after),
            "row_sums": dict(zip(("before", "after"), self.row_sums, strict=True)),
            "auc_interval": self.auc_interval and list(self.auc_interval),
            "words": list(self.words),
        }


def measure(calibration: Calibration, scores: "Scores", targets: Any = None) -> Report:
    """What a calibration did for the scores that it was fitted to.

    Args:
      scores, targets: as given to `calibrate`.

    Raises:
      ValueError: as `calibrate`; and for a label that occurs only in a part that is measured on,
        where each has a bias of its own.

    >>> from siglip_jax.calibration import Identity, calibrate
    >>> from siglip_jax.scoring import Scores
    >>> rng = np.random.default_rng(0)
    >>> targets = rng.random((300, 3)) < 0.3
    >>> scores = Scores(8 * targets + rng.normal(0, 3, (300, 3)) - 9, ("cat", "dog", "donut"))
    >>> made = calibrate(scores, targets, model=Identity("m", "sha256:1", {}))
    >>> found = measure(made, scores, targets)
    >>> found.before.nll > 2 * found.after.nll, found.words
    (True, ())
    """
    given = evidence(scores.logits, scores.labels, targets)
    plain = dataclasses.replace(calibration, method="none", scale=1.0, curve=None)
    plain = dataclasses.replace(plain, bias=np.zeros(len(calibration.labels)))
    if calibration.method == "softmax":
        plain = dataclasses.replace(plain, method="softmax")
    before, fitted = (c.probabilities(given.logits) for c in (plain, calibration))
    common: dict[str, Any] = {
        "images": len(given.logits),
        "labels": len(calibration.labels),
        "row_sums": tuple(float(p.sum(axis=1).mean()) for p in (before, fitted)),
        "targets": given.targets,
    }
    if given.targets is None or not given.targets.any():
        positives = None if given.targets is None else 0
        nothing: dict[str, Any] = dict.fromkeys(("before", "after", "auc_interval"))
        return Report(
            positives=positives, probabilities=(before, fitted), words=(), **nothing, **common
        )
    after = held_out(calibration, given)
    soft = calibration.method == "softmax"
    measured = [quality(p, given.targets, softmax=soft) for p in (before, after)]
    area = auc(given.logits, given.targets)
    interval = auc_interval(area, int(given.targets.sum()), int((~given.targets).sum()))
    return Report(
        positives=int(given.targets.sum()),
        before=measured[0],
        after=measured[1],
        auc_interval=interval,
        probabilities=(before, after),
        words=tuple(_words(calibration, given, area, interval)),
        **common,
    )


def held_out(calibration: Calibration, given: Evidence, folds: int = _FOLDS) -> np.ndarray:
    """Probabilities (n, labels) of each image by a fit of the same kind to the others.

    Raises:
      ValueError: if a label has a bias of its own and all its images are in one part.
    """
    if calibration.method in ("none", "expect"):
        return calibration.probabilities(given.logits)  # no label has been seen
    from sklearn.model_selection import KFold

    own = calibration.method == "bias" and bool(np.ptp(calibration.bias))
    out = np.empty(given.logits.shape)
    parts = KFold(min(folds, len(out)), shuffle=True, random_state=0).split(out)
    for rest, part in parts:
        others = given.part(rest)
        if own:
            refuse_empty_classes(others, calibration.labels, " but in the part that is measured on")
        refuse_few(others, calibration.labels)
        made = fields(others, calibration.method, calibration.labels, per_label=own)
        out[part] = dataclasses.replace(calibration, **made).probabilities(given.logits[part])
    return out


def _words(
    calibration: Calibration, given: Evidence, area: float, interval: tuple[float, float]
) -> "list[str]":
    said = []
    share = f"a right label is scored above a wrong one in {area:.0%} of cases, and chance is 50%"
    if area < _CHANCE or interval[0] <= 0.5:
        said.append(
            f"These labels are not separated by this model: {share}. No calibration helps; its "
            "probabilities are little more than how often each label occurs. Try other words, "
            "templates or another model."
        )
    elif area < _HARDLY:
        said.append(
            f"These labels are hardly separated by this model: {share}. Calibrated probabilities "
            "are low, as they should be, and few labels reach a threshold."
        )
    weak = []
    for column, label in enumerate(calibration.labels):
        right = given.known[:, column]
        count = int(right.sum())
        if _ENOUGH <= count <= len(right) - _ENOUGH:
            own = auc(given.logits[:, column], right)
            if auc_interval(own, count, len(right) - count)[0] <= 0.5:
                weak.append((label, own))
    if weak and area >= _CHANCE:
        said.append(
            f"Not separated from the others: {len(weak):,} of {len(calibration.labels):,} labels, "
            f"such as {weak[0][0]!r} (AUC {weak[0][1]:.2f})."
        )
    never = (
        []
        if calibration.thresholds is None
        else np.flatnonzero(np.isinf(calibration.thresholds)).tolist()
    )
    if never:
        said.append(
            f"No threshold keeps {calibration.rule} for {len(never):,} of "
            f"{len(calibration.labels):,} labels, such as {calibration.labels[never[0]]!r}: they "
            "are never accepted."
        )
    return said
