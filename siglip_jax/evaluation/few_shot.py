"""The few-shot linear probe of the papers ("10-shot"): least squares, in closed form.

The definition is big_vision's (`evaluators/fewshot_lsr.py`, at 0127fb6, with the settings of
`configs/common_fewshot.py`): for each seed some images of each class, features whitened by their
mean and standard deviation, a constant feature of 100 as a bias that the penalty hardly sees,
targets of 1 and -1, an L2 penalty of 1024, and the class with the largest output. As there it is
computed in float32 by jax on the host, through eigenvalues: of near ties the same class wins.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from siglip_jax.evaluation.labelled import labelled

SHOTS = 10
SEEDS = 3
PENALTY = 2.0**10
_BIAS = 100.0
_EPSILON = 1e-5  # beside standard deviations


def few_shot_accuracy(
    train: Any,
    train_labels: Any,
    test: Any,
    test_labels: Any,
    *,
    shots: int = SHOTS,
    seeds: int = SEEDS,
    penalty: float = PENALTY,
) -> list[float]:
    """Accuracy from 0 to 1 for each seed.

    Args:
      train, train_labels: (n, d) and (n,), of which `shots` of each class are taken.
      test, test_labels: (m, d) and (m,).
      shots: images of each class to learn from.
      seeds: how many choices are made, by numpy's `default_rng` of 0, 1, ...
      penalty: of the squared weights.

    Raises:
      ValueError: as `labelled`; if a class has fewer images than `shots` (big_vision takes what
        there is); if a setting is not positive.

    >>> z = np.float32([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    >>> few_shot_accuracy(z, [0, 0, 1, 1], z, [0, 0, 1, 1], shots=2, seeds=1)
    [1.0]
    """
    data = labelled(train, train_labels, test, test_labels)
    if shots < 1 or seeds < 1 or penalty <= 0:
        raise ValueError(
            f"shots and seeds must be at least 1 and penalty above 0, got {shots}, {seeds} and "
            f"{penalty}"
        )
    counts = np.bincount(data.train_labels, minlength=data.classes)
    few = np.flatnonzero(counts < shots)
    if len(few):
        raise ValueError(
            f"{len(few):,} of {data.classes:,} classes have fewer than {shots} training images, "
            f"such as class {few[0]} with {counts[few[0]]}"
        )
    found = []
    for seed in range(seeds):
        rows = _shots(data.train_labels, data.classes, shots, seed)
        predicted = _predicted(
            *_on_host(data.train[rows], data.train_labels[rows], data.test, penalty),
            classes=data.classes,
        )
        found.append(float((np.asarray(predicted) == data.test_labels).mean()))
    return found


def _shots(labels: np.ndarray, classes: int, shots: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    # One generator for all classes, in their order: the choice is big_vision's.
    chosen = [rng.permutation(np.flatnonzero(labels == index))[:shots] for index in range(classes)]
    return np.concatenate(chosen)


def _on_host(z: Any, labels: Any, test: Any, penalty: float) -> tuple[jax.Array, ...]:
    """In float32, on the CPU where jax has it: eigenvalues are not what accelerators are for."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names others only
        host = jax.local_devices()[0]
    arrays = np.float32(z), np.int32(labels), np.float32(test), np.float32(penalty)
    return tuple(jax.device_put(array, host) for array in arrays)


@functools.partial(jax.jit, static_argnames="classes")
def _predicted(
    z: Float[Array, "n d"],
    labels: Int32[Array, " n"],
    test: Float[Array, "m d"],
    penalty: Float[Array, ""],
    *,
    classes: int,
) -> Int32[Array, " m"]:
    mean, std = z.mean(axis=0, keepdims=True), z.std(axis=0, keepdims=True) + _EPSILON

    def features(z: Float[Array, "k d"]) -> Float[Array, "k d+1"]:
        return jnp.pad((z - mean) / std, ((0, 0), (0, 1)), constant_values=_BIAS)

    x, targets = features(z), 2.0 * jax.nn.one_hot(labels, classes) - 1.0
    # Of the two systems that have the same solution the smaller one.
    if len(x) >= x.shape[1]:
        values, vectors = jnp.linalg.eigh(x.T @ x)
        left, right = vectors, vectors.T @ (x.T @ targets)
    else:
        values, vectors = jnp.linalg.eigh(x @ x.T)
        left, right = x.T @ vectors, vectors.T @ targets
    weights = (left * (1.0 / (values + penalty))[None]) @ right
    return jnp.argmax(features(test) @ weights, axis=1)
