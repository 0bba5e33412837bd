"""From when on a label is accepted: thresholds that keep a promise on images not seen.

Bounds are Clopper and Pearson's, one-sided, at a confidence of 95 %: of a hundred sets of
labelled images, at least 95 give thresholds that keep theirs. They take examples for drawn
independently, from what will be scored.
"""

import math
from typing import Literal, NamedTuple, cast

import numpy as np
from scipy.stats import beta, binom

from siglip_jax.messages import did_you_mean

CONFIDENCE = 0.95
# Positive and negative examples for which a label has a threshold of its own by F, and how
# many times what a bound takes at least: with no more than that none may be wrong.
_OF_ITS_OWN, _TIMES = 10, 2
# How many more labels each next candidate for a precision accepts.
_STEP = 1.2

Kind = Literal["f", "precision", "recall", "fpr"]


class Rule(NamedTuple):
    """What thresholds are chosen for.

    Attributes:
      kind: "f": the largest F; "precision" or "recall": a bound from below; "fpr": a bound on
        the share of wrong labels that are accepted.
      value: the weight of recall in F, or the bound.
    """

    kind: Kind
    value: float

    def needed(self, *, together: bool = False) -> tuple[int, int]:
        """The least positive and negative examples, of a label or of several together."""
        if self.kind == "f":
            # Which promises nothing.
            return (2, 2) if together else (_OF_ITS_OWN, _OF_ITS_OWN)
        if self.kind == "fpr":
            return 0, math.ceil(1 / self.value) - 1
        # All of so many right, or accepted, prove the bound.
        least = math.ceil(math.log(1 - CONFIDENCE) / math.log(self.value))
        return (least if together else _TIMES * least), 0


def rule_named(text: str) -> Rule:
    """A rule from its name.

    Raises:
      ValueError: if there is no such rule, or its number is out of range.

    >>> rule_named("f1"), rule_named("precision=0.95").needed(together=True)
    (Rule(kind='f', value=1.0), (59, 0))
    """
    name, equals, number = text.partition("=")
    if not equals and name[:1] == "f":
        name, number = "f", text[1:]
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if name == "f" and 0 < value < 100:
        return Rule("f", value)
    if equals and name in ("precision", "recall", "fpr") and 0 < value < 1:
        return Rule(cast(Kind, name), value)
    hint = did_you_mean(name, ("precision", "recall", "fpr"), "{}=NUMBER")
    raise ValueError(
        f"threshold {text}: expected f1 (or another weight of recall), precision=P, recall=R or "
        f"fpr=RATE with a number between 0 and 1{hint}"
    )


def limits(probabilities: np.ndarray, targets: np.ndarray, rule: Rule) -> np.ndarray:
    """Thresholds (labels,) of probabilities (n, labels) by a rule; infinity for never.

    A label with enough examples has its own; all others share one, which keeps the promise for
    them together.

    Args:
      targets: (n, labels) bool; for "fpr" no label need be right for any image.

    Raises:
      ValueError: if no label can have one; says how many examples it takes.

    >>> p = np.linspace(0, 1, 200).reshape(-1, 1)
    >>> limits(p, p > 0.5, rule_named("precision=0.95")).round(2).tolist()
    [0.57]
    """
    positive, negative = rule.needed()
    positives = targets.sum(axis=0)
    own = (positives >= positive) & (len(targets) - positives >= negative)
    found = np.full(targets.shape[1], np.inf)
    for column in np.flatnonzero(own):
        found[column] = _limit(probabilities[:, column], targets[:, column], rule)
    if not own.all():
        rest = probabilities[:, ~own].ravel(), targets[:, ~own].ravel()
        examples = int(rest[1].sum()), int((~rest[1]).sum())
        positive, negative = rule.needed(together=True)
        if examples[0] >= positive and examples[1] >= negative:
            found[~own] = _limit(*rest, rule)
    if np.isinf(found).all():
        _refuse(rule, int(positives.sum()), int((~targets).sum()))
    return found


def _refuse(rule: Rule, positives: int, negatives: int) -> None:
    positive, negative = rule.needed(together=True)
    what = "negative" if rule.kind == "fpr" else "positive"
    there, needed = (negatives, negative) if rule.kind == "fpr" else (positives, positive)
    if there < needed:
        raise ValueError(
            f"threshold {_name(rule)}: it takes at least {needed:,} {what} examples, and here "
            f"{'is' if there == 1 else 'are'} {there:,}; label more images, or ask for less"
        )
    raise ValueError(
        f"threshold {_name(rule)}: no threshold reaches it on these images, with a confidence of "
        f"{CONFIDENCE:.0%}; ask for less, or label more images"
    )


def _name(rule: Rule) -> str:
    return f"f{rule.value:g}" if rule.kind == "f" else f"{rule.kind}={rule.value:g}"


def _limit(p: np.ndarray, right: np.ndarray, rule: Rule) -> float:
    """The threshold of probabilities (n,)."""
    if rule.kind == "f":
        return _largest_f(p, right, rule.value)
    if rule.kind == "precision":
        return _precise(p, right, rule.value)
    if rule.kind == "recall":
        return _complete(p[right], rule.value)
    return _conformal(p[~right], rule.value)


def _largest_f(p: np.ndarray, right: np.ndarray, weight: float) -> float:
    from sklearn.metrics import precision_recall_curve

    precision, recall, found = precision_recall_curve(right, p)
    share = weight**2
    f = (1 + share) * precision * recall / np.maximum(share * precision + recall, 1e-12)
    best = np.argmax(f[:-1])
    # Half way to the next lower probability: on one of these images itself, the last bit of
    # another batch size would decide.
    below = found[best - 1] if best > 0 else 0.0
    return float((found[best] + below) / 2)


def _precise(p: np.ndarray, right: np.ndarray, least: float) -> float:
    """The lowest threshold above which the precision is at least `least`; infinity if none is.

    The best of several candidates promises too much. These are tested from the highest on,
    each at an equal part of 5 %, and one that passes hands its part to the next (Wiens 2003).
    """
    order = np.argsort(-p, kind="stable")
    last = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))  # of equal scores
    accepted, hits = last + 1, np.cumsum(right[order])[last]
    most = right.sum() / least
    sizes = _sizes(least, 1)
    while (more := _sizes(least, len(sizes) + 1))[-1] <= most:
        sizes = more
    candidates = np.unique(np.searchsorted(accepted, sizes))
    candidates = candidates[candidates < len(accepted)]
    best, handed = math.inf, 0.0
    for place in candidates:
        level = handed + (1 - CONFIDENCE) / len(sizes)
        n, k = int(accepted[place]), int(hits[place])
        passed = k > 0 and beta.ppf(level, k, n - k + 1) >= least
        handed = level if passed else 0.0
        if passed:
            best = float(p[order[last[place]]])
    return best


def _sizes(least: float, count: int) -> np.ndarray:
    """How many accepted labels each candidate has: the first may pass at its part of 5 %."""
    first = math.ceil(math.log((1 - CONFIDENCE) / count) / math.log(least))
    return first * _STEP ** np.arange(count)


def _complete(p: np.ndarray, least: float) -> float:
    """The highest threshold that `least` of the positives reach, with confidence."""
    # The k-th lowest has a share of at most 1 - least below it, unless fewer than k of n do.
    k = int(binom.ppf(1 - CONFIDENCE, len(p), 1 - least))
    return float(np.sort(p)[k - 1]) if k > 0 else math.inf


def _conformal(p: np.ndarray, most: float) -> float:
    """The lowest threshold that a share of at most `most` of negatives reaches, on average."""
    rank = math.ceil((len(p) + 1) * (1 - most))
    if rank > len(p):
        return math.inf
    return float(np.nextafter(np.sort(p)[rank - 1], np.inf))
