"""From scores, and what is known of their labels, to a calibration."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from siglip_jax.calibration import fits
from siglip_jax.calibration.calibration import METHODS, Calibration, Method
from siglip_jax.calibration.evidence import Evidence, evidence, refuse_few
from siglip_jax.calibration.identity import Identity, Model, identity_of
from siglip_jax.calibration.thresholds import limits, rule_named
from siglip_jax.messages import choose

if TYPE_CHECKING:
    from siglip_jax.scoring import Scores


def calibrate(
    scores: "Scores",
    targets: Any = None,
    *,
    model: Model | Identity,
    method: Method | None = None,
    expect: float = 1.0,
    per_label: bool = False,
    thresholds: Sequence[str] = (),
    templates: Sequence[str] = ("{}",),
) -> Calibration:
    """A calibration fitted to scores.

    Args:
      scores: of images with labels, as `Scorer.score` gives them.
      targets: (images, labels) of 0 or 1, whether each label is right (`targets_of`); None if
        nothing is known. All 0, of images that no label fits, do for thresholds of "fpr=...".
      model: what made the scores.
      method: "expect": the bias for which the probabilities of an image sum to `expect` on
        average, without labels. "bias": the likeliest bias. "platt": the likeliest scale and
        bias. "isotonic": the likeliest rising curve, of many examples. "softmax": the likeliest
        scale of a softmax, for another meaning. "none": the model's own probabilities, with
        thresholds. Default: "platt" with targets, "expect" without.
      expect: how many labels are right for an image, on average.
      per_label: of "bias": a bias for each label, drawn to that of all by n/(n + 10).
      thresholds: rules, such as "f1", "precision=0.95", "recall=0.9", "fpr=0.01"; the first
        is chosen (`limits`).
      templates: that the scores were made with.

    Raises:
      ValueError: one line: scores or targets that nothing can be fitted to, a method that needs
        more of them, or a rule that no label can keep.

    >>> from siglip_jax.scoring import Scores
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(-4, 2, (500, 3)).astype(np.float32)
    >>> scores = Scores(logits, ("cat", "dog", "donut"))
    >>> made = calibrate(scores, model=Identity("m", "sha256:1", {}), expect=1)
    >>> scores.calibrated(made).probabilities.sum(axis=1).mean().round(3)
    np.float64(1.0)
    """
    if scores.activation != "sigmoid" or scores.calibration is not None:
        raise ValueError("expected the model's own scores of labels, not a classifier's classes")
    given = evidence(scores.logits, scores.labels, targets)
    chosen = choose("method", method or ("expect" if targets is None else "platt"), METHODS)
    made = Calibration(
        identity=identity_of(model),
        labels=tuple(scores.labels),
        templates=tuple(templates),
        n=len(given.logits),
        **fields(given, chosen, scores.labels, expect=expect, per_label=per_label),
    )
    return with_rules(made, given, thresholds)


def fields(
    given: Evidence,
    method: str,
    labels: Sequence[str],
    *,
    expect: float = 1.0,
    per_label: bool = False,
) -> dict[str, Any]:
    """The fields of a `Calibration` that a method decides."""
    if per_label and method != "bias":
        raise ValueError(f"a bias for each label is of the method bias, not of {method}")
    made: dict[str, Any] = {"method": method}
    labelled = method == "softmax" and given.targets is not None
    if labelled or method in ("bias", "platt", "isotonic"):
        refuse_few(given, labels)
    if method == "expect":
        made["bias"] = np.full(len(labels), fits.expected_bias(given.logits, expect))
    elif method == "bias":
        shared = fits.shared_bias(given)
        if per_label:
            refuse_empty_classes(given, labels)
            made["bias"] = fits.label_biases(given, shared)
        else:
            made["bias"] = np.full(len(labels), shared)
    elif method == "platt":
        made["scale"], bias = fits.platt(given)
        made["bias"] = np.full(len(labels), bias)
    elif method == "isotonic":
        made["curve"] = fits.isotonic(given)
    elif labelled:
        made["scale"] = fits.softmax_scale(given)
    return made


def with_rules(made: Calibration, given: Evidence, rules: Sequence[str]) -> Calibration:
    """The calibration with thresholds by `rules`, of which the first is chosen."""
    if not rules:
        return made
    probabilities = made.probabilities(given.logits)
    found = {rule: limits(probabilities, given.known, rule_named(rule)) for rule in rules}
    return dataclasses.replace(made, rules=found, rule=rules[0])


def refuse_empty_classes(given: Evidence, labels: Sequence[str], where: str = "") -> None:
    """A ValueError if a label has no positive example."""
    empty = np.flatnonzero(~given.known.any(axis=0))
    if len(empty):
        few = len(empty) == 1
        raise ValueError(
            f"{len(empty):,} of {len(labels):,} labels {'has' if few else 'have'} no image{where}, "
            f"such as {labels[empty[0]]!r}: no bias of {'its' if few else 'their'} own can be "
            "fitted; add images or leave the label out, or fit one bias for all"
        )
