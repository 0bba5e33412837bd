"""The MAP head as a function of its attention weights.

The head of the model computes its weights; this one is given them, so that a score can be
differentiated by them, or a patch be pooled alone.
"""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from siglip_jax.config import Size
from siglip_jax.models.layers import of_any_weights
from siglip_jax.models.transformer import Mlp


class _WeightedValues(nn.Module):
    """What attention makes of its values, where the weights are known."""

    size: Size

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], weights: Float[Array, "b k n"]
    ) -> Float[Array, "b d"]:
        def dense(features: int | tuple[int, ...], axis: int | tuple[int, ...], name: str) -> Any:
            return of_any_weights(nn.DenseGeneral(features, axis=axis, name=name))

        value = dense((self.size.num_heads, self.size.head_dim), -1, "value")(x)
        y = jnp.einsum("bkn,bnkd->bkd", weights, value)
        return dense(x.shape[-1], (-2, -1), "out")(y)


class WeightedHead(nn.Module):
    """`models.transformer.MapHead` with its attention given; its parameters are that head's."""

    size: Size

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], weights: Float[Array, "b k n"]
    ) -> Float[Array, "b d"]:
        """Pooled tokens, as the model pools them if `weights` are its own.

        Args:
          x: tokens after the last norm, `out["img/encoded"]`.
          weights: `out["img/map_weights"]`, or others.
        """
        y = _WeightedValues(self.size, name="MultiHeadDotProductAttention_0")(x, weights)
        z = nn.LayerNorm(name="LayerNorm_0")(y)
        return y + Mlp(mlp_dim=self.size.mlp_dim, name="MlpBlock_0")(z[:, None])[:, 0]
