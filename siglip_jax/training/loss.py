"""The sigmoid loss, and the softmax loss to compare it with.

Both take unit-norm rows, as the towers return them, and the parameters of
`SiglipModel`: `t`, whose exponential is the temperature, and the bias `b`. Row i of the
images belongs to row i of the texts and to no other.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from siglip_jax.models import logits


def sigmoid_loss(
    zimg: Float[ArrayLike, "n d"],
    ztxt: Float[ArrayLike, "n d"],
    t: Float[ArrayLike, "1"],
    b: Float[ArrayLike, "1"],
) -> Float[Array, ""]:
    """Every pair is a question of its own: do the two belong together?

    Algorithm 1 of arXiv 2303.15343; big_vision `trainers/proj/image_text/siglip.py` at
    0127fb6. Summed over the n texts, averaged over the n images, so that it grows with n.
    Holds all n x n logits: `chunked_sigmoid_loss` does not.

    >>> z, t, b = jnp.eye(2), jnp.log(jnp.array([10.0])), jnp.array([-10.0])
    >>> round(float(sigmoid_loss(z, z, t, b)), 5)  # log 2 for the match, log(1 + e^-10) beside it
    0.69319
    """
    n = jnp.shape(zimg)[0]
    scores = logits(zimg, ztxt, t, b)
    labels = 2 * jnp.eye(n, dtype=scores.dtype) - 1  # -1 with diagonal 1
    return -jnp.mean(jnp.sum(jax.nn.log_sigmoid(labels * scores), axis=1))


def softmax_loss(
    zimg: Float[ArrayLike, "n d"],
    ztxt: Float[ArrayLike, "n d"],
    t: Float[ArrayLike, "1"],
    b: Float[ArrayLike, "1"],
) -> Float[Array, ""]:
    """CLIP's loss: which of the n texts is this image's, and which image is this text's?

    The mean of both cross entropies, as big_vision's `softmax_loss`
    (`trainers/proj/image_text/_deprecated_contrastive.py` at 0127fb6). `b` adds the same to
    every logit and so changes nothing; its gradient is zero.

    >>> z, t, b = jnp.eye(2), jnp.log(jnp.array([10.0])), jnp.array([-10.0])
    >>> round(float(softmax_loss(z, z, t, b)), 6)  # log(1 + e^-10)
    4.5e-05
    """
    del b
    scores = logits(zimg, ztxt, t, jnp.zeros_like(t))
    by_image = jnp.diag(jax.nn.log_softmax(scores, axis=1))
    by_text = jnp.diag(jax.nn.log_softmax(scores, axis=0))
    return -jnp.mean(by_image + by_text) / 2
