"""From an image and labels to an explanation."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from siglip_jax.explain.explainer import Explainer, path_points
from siglip_jax.explain.explanation import METHODS, Explanation
from siglip_jax.explain.grid import grid_of, seen_pixels
from siglip_jax.messages import choose
from siglip_jax.preprocessing import Patches

if TYPE_CHECKING:
    from siglip_jax.scoring import Scorer

# What the attributions of a label may miss of the difference that they explain.
_GAP = 0.01
_NOTHING = 1e-4  # in logits; no weight of attention is so small everywhere
# Panels of `POINTS` gradients: as many as it takes, and no more than the last.
_PANELS = (1, 2, 4, 8, 16)


def explain(
    scorer: "Scorer",
    explainer: Explainer,
    image: Any,
    labels: Sequence[str],
    *,
    method: str,
    templates: Sequence[str],
    steps: int | None = None,
) -> Explanation:
    """What `Scorer.explain` returns; see there.

    Raises:
      ValueError: for what is said there.
    """
    check_method(method, explainer.pool)
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    ztxt = scorer.embed_labels(labels, templates)
    ready = scorer.preprocess(image)
    batch = Patches(*(part[None] for part in ready)) if isinstance(ready, Patches) else ready[None]
    given = (scorer.params, jax.tree.map(explainer.place, batch), explainer.place(ztxt))
    scores, weights = map(_host, explainer.attention(*given))
    grid = grid_of(ready, scorer.model.config.image_tower)
    gaps = None
    if method == "attention":
        assert weights is not None
        tokens = np.broadcast_to(weights.mean(axis=0), (len(ztxt), weights.shape[-1]))
    elif method == "integrated_gradients":
        tokens, gaps, steps = _integrated(explainer, given, steps)
    else:
        tokens = _host(getattr(explainer, method)(*given)[1])
    labels = tuple(labels)
    _check_finite(np.asarray(tokens), scores, labels, method)
    made = Explanation(
        labels=labels,
        logits=scores,
        method=method,
        maps=grid.map(np.asarray(tokens)),
        attention=None if weights is None else grid.map(weights),
        pixels=seen_pixels(ready, grid, scorer.program.pixels),
        gaps=gaps,
    )
    _warn(made, steps)
    return made


def _integrated(
    explainer: Explainer, given: tuple[Any, ...], steps: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Attributions (l, n), what they miss (l,), and how many gradients were taken."""
    for panels in _PANELS:
        at, parts = path_points(panels) if steps is None else path_points(1, steps)
        tokens: Any = 0
        whole: Any = 0
        empty: Any = 0
        for points in zip(at, parts, strict=True):
            places = map(explainer.place, points)
            whole, part, empty = map(_host, explainer.integrated_gradients(*given, *places))
            tokens = tokens + part
        difference = whole - empty
        # Of two equal scores any share is large: their own size is the measure then.
        size = np.maximum(np.abs(difference), 1e-3 * np.maximum(np.abs(whole), 1))
        gaps = np.abs(tokens.sum(axis=-1) - difference) / size
        if steps is not None or not np.any(gaps > _GAP):
            break
    return tokens, gaps, at.size


def check_method(method: str, pool: str | None) -> str:
    """`method`, if a model that pools so has it.

    Raises:
      ValueError: if there is none of that name, or it is about attention that there is not.

    >>> check_method("gradients", "map")
    Traceback (most recent call last):
    ValueError: method must be one of ..., got 'gradients'; did you mean gradient?
    """
    choose("method", method, METHODS)
    if pool != "map" and method in ("gradient", "attention"):
        raise ValueError(
            f"method {method} is about the attention of the pooling head, and this model takes "
            "the mean of its patches; use integrated_gradients or similarity"
        )
    return method


def _host(array: Any) -> Any:
    return None if array is None else np.asarray(array)


def _check_finite(
    tokens: np.ndarray, scores: np.ndarray, labels: tuple[str, ...], method: str
) -> None:
    for label, row, score in zip(labels, tokens, scores, strict=True):
        if np.isfinite(score) and np.isfinite(row).all():
            continue
        what = f"the map by {method}" if np.isfinite(score) else "its score"
        raise ValueError(
            f"label {label!r}: {what} is NaN or infinite; compute in float32, and check the "
            "weights with siglip-jax verify"
        )


def _warn(made: Explanation, steps: int | None) -> None:
    for index, label in enumerate(made.labels):
        # Of an image of one colour rounding is left.
        if np.abs(made.maps[index]).max() <= _NOTHING:
            warnings.warn(
                f"label {label!r}: the map by {made.method} is zero everywhere: no patch of this "
                "image moves its score",
                stacklevel=4,
            )
        elif made.gaps is not None and made.gaps[index] > _GAP:
            warnings.warn(
                f"label {label!r}: the map misses {made.gaps[index]:.1%} of what it explains with "
                f"{steps} steps; take more",
                stacklevel=4,
            )
