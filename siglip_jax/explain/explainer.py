"""The compiled functions behind explanations: where a model looks, and what moved its score."""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from siglip_jax.explain.head import WeightedHead
from siglip_jax.models import logits, normalize, value_range
from siglip_jax.models.activations import batches_split_by
from siglip_jax.preprocessing import Patches
from siglip_jax.programs.towers import Program

# Gradients that one call takes.
POINTS = 32


class Explainer:
    """Maps over the tokens of one image, for each of some labels.

    Every function takes the weights, one image with a batch axis of 1 and label embeddings
    (l, d), and returns logits (l,) with numbers (l, n) for the tokens.

    Args:
      program: of the model; one with both towers.
    """

    def __init__(self, program: Program) -> None:
        self._program, self.config = program, program.model.config
        vision = self.config.image_tower
        self.pool = vision.pool
        self._head = WeightedHead(vision.size)
        self.attention = self._jit(self._attention)
        self.gradient = self._jit(self._gradient)
        self.similarity = self._jit(self._similarity)
        self.integrated_gradients = self._jit(self._integrated_gradients)

    def place(self, array: Any) -> jax.Array:
        """`array` on every device of the mesh."""
        return jax.device_put(array, self._program.everywhere)

    def _jit(self, function: Callable[..., Any]) -> Any:
        def traced(params: Any, image: Any, *others: Any) -> Any:
            if not isinstance(image, Patches) and image.dtype == jnp.uint8:
                image = value_range(image, *self._program.pixels)
            with self._tracing():
                return function(params, image, *others)

        return jax.jit(traced, out_shardings=self._program.everywhere)

    @contextlib.contextmanager
    def _tracing(self) -> Iterator[None]:
        # One image is on every device: there is no batch to split.
        precision = jax.default_matmul_precision(self._program.model.execution.precision)
        with precision, batches_split_by(self._program.everywhere, hold=False):
            yield

    def _apply(self, params: Any, image: Any, **options: Any) -> Any:
        apply: Any = self._program.model.apply
        return apply({"params": params}, image, **options)

    def _score(self, params: Any, zimg: jax.Array, ztxt: jax.Array) -> Float[Array, "i l"]:
        return logits(zimg, ztxt, params["t"], params["b"])

    def _pooled(self, params: Any, x: jax.Array, weights: jax.Array) -> Float[Array, "b d"]:
        head = {"params": params["img"]["MAPHead_0"]}
        pooled: Any = self._head.apply(head, x.astype(jnp.float32), weights)
        return normalize(pooled.astype(jnp.float32))

    def _attention(self, params: Any, image: Any, ztxt: jax.Array) -> Any:
        """Logits, and the weights (k, n) of every head of the MAP head: of any label the same."""
        zimg, _, out = self._apply(params, image, map_weights=self.pool == "map")
        weights = out.get("img/map_weights")
        scores = self._score(params, zimg, ztxt)[0]
        return scores, None if weights is None else weights[0].astype(jnp.float32)

    def _gradient(self, params: Any, image: Any, ztxt: jax.Array) -> Any:
        out = self._apply(params, image, map_weights=True)[2]
        x, weights = out["img/encoded"], out["img/map_weights"].astype(jnp.float32)

        def score(weights: jax.Array) -> Float[Array, " l"]:
            return self._score(params, self._pooled(params, x, weights), ztxt)[0]

        scores, slope = score(weights), jax.jacrev(score)(weights)[:, 0]  # (l, k, n)
        # Weights of a head sum to one: only what exceeds the mean can be had by looking there.
        slope = slope - jnp.einsum("lkn,kn->lk", slope, weights[0])[..., None]
        return scores, jnp.einsum("lkn,kn->ln", slope, weights[0])

    def _similarity(self, params: Any, image: Any, ztxt: jax.Array) -> Any:
        zimg, _, out = self._apply(params, image)
        x = out["img/encoded"][0]  # (n, d)
        if self.pool == "map":
            ones = jnp.ones((len(x), self.config.image_tower.size.num_heads, 1), jnp.float32)
            alone = self._pooled(params, x[:, None], ones)
        else:
            alone = normalize(x.astype(jnp.float32))
        return self._score(params, zimg, ztxt)[0], self._score(params, alone, ztxt).T

    def _integrated_gradients(
        self, params: Any, image: Any, ztxt: jax.Array, points: jax.Array, parts: jax.Array
    ) -> Any:
        """Logits, attributions (l, n) of some points, and logits of the image without its content.

        Args:
          points, parts: (p,) of `path_points`.
        """
        pixels = image.patches if isinstance(image, Patches) else image

        def score(pixels: jax.Array) -> Float[Array, " l"]:
            whole = image._replace(patches=pixels) if isinstance(image, Patches) else pixels
            return self._score(params, self._apply(params, whole)[0], ztxt)[0]

        empty = without_content(image)

        def step(total: jax.Array, at: Any) -> tuple[jax.Array, None]:
            point, part = at
            return total + part * jax.jacrev(score)(empty + point * (pixels - empty)), None

        zero = jnp.zeros((len(ztxt), *pixels.shape), jnp.float32)
        mean = jax.lax.scan(step, zero, (points, parts))[0]
        tokens = self._by_token((mean * (pixels - empty)[None])[:, 0])
        return score(pixels), tokens, score(empty)

    def _by_token(self, attributions: jax.Array) -> Float[Array, "l n"]:
        """Sums over the pixels of each token: (l, n, p·p·3) or (l, res, res, 3)."""
        if attributions.ndim == 3:
            return attributions.sum(axis=-1)
        vision: Any = self.config.image_tower
        grid, side = vision.grid, vision.patch
        whole = attributions[:, : grid * side, : grid * side]
        tiles = whole.reshape(-1, grid, side, grid, side, 3)
        return tiles.sum(axis=(2, 4, 5)).reshape(-1, grid**2)


def without_content(image: Any) -> jax.Array:
    """The pixels of an image of one colour, the mean of `image`; padding stays what it is.

    Args:
      image: (1, res, res, 3), or `Patches` of shape (1, n, ...).
    """
    if not isinstance(image, Patches):
        return jnp.broadcast_to(image.mean(axis=(1, 2), keepdims=True), image.shape)
    valid = (image.type == 1)[..., None, None]
    pixels = image.patches.reshape(*image.type.shape, -1, 3)
    mean = jnp.mean(pixels, axis=(1, 2), keepdims=True, where=valid)
    return jnp.where(valid, mean, pixels).reshape(image.patches.shape)


def path_points(panels: int, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Where on the way from 0 to 1 gradients are taken, and the weight of each; Gauss-Legendre.

    Args:
      panels: equal parts of the way.
      points: in each of them.

    Returns:
      (panels, points) positions, and as many weights, whose sum is 1.

    >>> at, parts = path_points(1, 8)
    >>> round(float((parts * at**3).sum()), 6)  # the integral of x³
    0.25
    """
    at, parts = np.polynomial.legendre.leggauss(points)
    starts = np.arange(panels)[:, None] / panels
    at = starts + (at + 1) / 2 / panels
    return at.astype(np.float32), np.tile(parts / 2 / panels, (panels, 1)).astype(np.float32)
