"""From logits to probabilities that mean something, for one model and one set of labels."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from siglip_jax.calibration.identity import Identity, Model, identity_of
from siglip_jax.messages import choose, did_you_mean, suggestions

Method = Literal["none", "expect", "bias", "platt", "isotonic", "softmax"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What makes probabilities of a model's logits, and from when on a label is accepted.

    The probability is `sigmoid(scale · logit + bias)`; of "isotonic" it is read from a curve
    instead, and "softmax" means something else: the probability of each label if exactly one
    of them is right. The order of an image's labels remains that of the logits.

    Attributes:
      identity: the model and its preprocessing.
      labels, templates: what images were scored with; columns are in the order of `labels`.
      method: how it was fitted ("none": thresholds only, on the model's own probabilities).
      n: images that it was fitted to.
      scale: of all logits.
      bias: (labels,), each label's own or the same for all.
      curve: of "isotonic": logits (k,), which rise, and their probabilities (k,).
      rules: thresholds (labels,) of probabilities by the name of a rule, such as "f1" or
        "precision=0.95"; infinity for a label that is never accepted.
      rule: the one of `rules` that `thresholds` are of; or None.

    Raises:
      ValueError: if numbers or shapes do not go together.

    >>> made = Calibration(identity=Identity("m", "sha256:1", {}), labels=("cat", "dog"),
    ...                    method="expect", n=100, bias=np.array([2.0, 2.0]))
    >>> made.probabilities(np.array([[-2.0, -9.0]])).round(3).tolist()
    [[0.5, 0.001]]
    >>> made.check(model=Identity("m", "sha256:2", {}), labels=("cat", "dog"))
    Traceback (most recent call last):
    ValueError: the calibration is of m, and m here is another model: its weights differ; ...
    """

    identity: Identity
    labels: tuple[str, ...]
    method: Method
    n: int
    templates: tuple[str, ...] = ("{}",)
    scale: float = 1.0
    bias: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    curve: tuple[np.ndarray, np.ndarray] | None = None
    rules: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict[str, np.ndarray])
    rule: str | None = None

    def __post_init__(self) -> None:
        choose("method", self.method, METHODS)
        shape = (len(self.labels),)
        if not self.labels or not self.templates:
            raise ValueError("a calibration has at least one label and one template")
        bias = np.asarray(self.bias if np.size(self.bias) else np.zeros(shape), np.float64)
        object.__setattr__(self, "bias", bias)
        if bias.shape != shape:
            raise ValueError(f"expected biases of shape {shape}, got {bias.shape}")
        if not (0 < self.scale < math.inf) or not np.isfinite(self.bias).all():
            raise ValueError("the scale must be positive, and scale and biases finite numbers")
        if (self.method == "isotonic") != (self.curve is not None):
            raise ValueError("a curve belongs to the method isotonic, and to no other")
        if self.curve is not None:
            x, y = self.curve
            rising = bool((np.diff(x) > 0).all() and (np.diff(y) >= 0).all())
            within = bool(np.isfinite(x).all() and ((y >= 0) & (y <= 1)).all())
            if x.shape != y.shape or x.ndim != 1 or not len(x) or not (rising and within):
                raise ValueError("the curve must be of logits that rise and probabilities that do")
        for name, values in self.rules.items():
            if np.shape(values) != shape or not (np.asarray(values) >= 0).all():
                raise ValueError(f"thresholds of {name}: expected {shape[0]} numbers from 0 on")
        if self.rule is not None and self.rule not in self.rules:
            raise ValueError(f"there are no thresholds of {self.rule}")

    def probabilities(self, logits: Any, columns: np.ndarray | None = None) -> np.ndarray:
        """Probabilities (n, labels) float64 of logits (n, labels); NaN stays NaN.

        Args:
          columns: (n, k), the labels that logits (n, k) are of, where they are a few of all.

        Raises:
          ValueError: for another number of labels, or a softmax of a few labels.
        """
        from scipy.special import expit, softmax

        logits = np.asarray(logits, np.float64)
        if columns is None:
            if logits.ndim != 2 or logits.shape[1] != len(self.labels):
                raise ValueError(
                    f"expected logits of shape (n, {len(self.labels)}), got {logits.shape}"
                )
        elif self.method == "softmax":
            raise ValueError("a softmax needs the logits of all labels; take all, not the best")
        if self.curve is not None:
            return np.interp(logits, *self.curve)
        scaled = self.scale * logits + (self.bias if columns is None else self.bias[columns])
        return softmax(scaled, axis=1) if self.method == "softmax" else expit(scaled)

    @property
    def thresholds(self) -> np.ndarray | None:
        """(labels,) probabilities from which on a label is accepted; None if none were chosen."""
        return None if self.rule is None else np.asarray(self.rules[self.rule])

    def with_threshold(self, rule: str) -> "Calibration":
        """The same with the thresholds of a rule, or of a number such as "0.5" for all labels.

        Raises:
          ValueError: if there are none of this rule.
        """
        if rule in self.rules:
            return dataclasses.replace(self, rule=rule)
        try:
            number = float(rule)
        except ValueError:
            number = math.nan
        if 0 <= number <= 1:
            rules = {**self.rules, rule: np.full(len(self.labels), number)}
            return dataclasses.replace(self, rules=rules, rule=rule)
        hint = did_you_mean(rule, self.rules)
        there = f"has thresholds of {', '.join(self.rules)}" if self.rules else "has none"
        raise ValueError(
            f"threshold {rule}: the calibration {there}{hint}; give a number from 0 to 1, or "
            f"calibrate labelled images with --threshold {rule}"
        )

    def check(
        self,
        *,
        model: Model | Identity,
        labels: Sequence[str],
        profile: Any = None,
        templates: Sequence[str] = ("{}",),
    ) -> None:
        """Refuses another model, preprocessing, set of labels or list of templates.

        Args:
          model: what `load` returns, a `Scorer`, or an `Identity`.
          labels, templates: as given to `Scorer.score`.
          profile: a `Profile` or its `to_dict()`; default: that of the model.

        Raises:
          ValueError: one line that says what differs.
        """
        here = identity_of(model, profile)
        there = self.identity
        if changed := there.differences(here):
            what = "model" if changed == ["weights"] else "preprocessing"
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise ValueError(
                f"the calibration is of {there.name}, and {here.name} here is another {what}: its "
                f"{', '.join(changed[:3])}{more} differ; calibrate anew, or score as it was made"
            )
        self.check_texts(labels, templates)

    def check_texts(self, labels: Sequence[str], templates: Sequence[str]) -> None:
        """Refuses other labels, another order of them, and other templates.

        Raises:
          ValueError: one line that says what differs.
        """
        self.check_labels(labels)
        if tuple(templates) != self.templates:
            raise ValueError(
                f"the calibration is of other templates: {_few(self.templates)}, and here are "
                f"{_few(templates)}; calibrate anew, or score with its own"
            )

    def check_labels(self, labels: Sequence[str]) -> None:
        """Refuses another set of labels, and another order.

        Raises:
          ValueError: one line that says what differs.
        """
        here = tuple(labels)
        if here == self.labels:
            return
        said = "the calibration is of other labels: "
        if sorted(here) == sorted(self.labels):
            raise ValueError(f"{said}the same in another order; give them in its own")
        added = [label for label in here if label not in set(self.labels)]
        gone = [label for label in self.labels if label not in set(here)]
        counts = f"it has {len(self.labels):,}, and here are {len(here):,}"
        if added:
            near = suggestions(added[0], gone)
            hint = f" (it has {near[0]!r})" if near else ""
            counts += f"; {added[0]!r} is none of its own{hint}"
        elif gone:
            counts += f"; its {gone[0]!r} is missing here"
        raise ValueError(f"{said}{counts}; calibrate anew, or score with its labels")

    def digest(self) -> str:
        """A short digest of all that probabilities and thresholds depend on."""
        from siglip_jax.calibration.calibration_file import plain

        text = json.dumps(plain(self), sort_keys=True).encode()
        return hashlib.sha256(text).hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Writes a small JSON file, whole or not at all; what is there gives way.

        Raises:
          ValueError: if the folder does not exist.
        """
        from siglip_jax.calibration.calibration_file import write

        write(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> "Calibration":
        """Reads what `save` wrote.

        Raises:
          ValueError: if it is not there or no calibration; one line that names the file.
        """
        from siglip_jax.calibration.calibration_file import read

        return read(Path(path))


def _few(texts: Sequence[str]) -> str:
    return ", ".join(map(repr, cast(Sequence[str], texts)[:3])) + (", ..." * (len(texts) > 3))
