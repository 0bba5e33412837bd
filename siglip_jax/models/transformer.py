"""The transformer that all towers share: pre-norm blocks, and the MAP head.

Follows big_vision `models/vit.py` (and, for masks, `naflex_vit.py`) at 0127fb6.
Every submodule's name is spelled out, so that the parameter tree is big_vision's
whatever the classes here are called. Differs in that one mask-aware block serves
image, NaFlex and text; that attention has a choice of implementation; that
remat is asked for, not implied by scan; and in having no dropout.
"""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

import functools
import operator
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from siglip_jax.config import Attention, Pool, Size
from siglip_jax.models.activations import split_over_batch
from siglip_jax.models.attention import attention, attention_weights
from siglip_jax.models.layers import of_any_weights, product_of
from siglip_jax.models.stacked_weights import converts_early, scan_layers

Intermediates = dict[str, Any]


class Mlp(nn.Module):
    """Two dense layers around a tanh-approximated GELU."""

    mlp_dim: int
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        def dense(features: int, name: str, rounded: bool) -> Callable[[jax.Array], jax.Array]:
            layer = nn.Dense(
                features,
                dtype=self.dtype,
                kernel_init=nn.initializers.xavier_uniform(),
                bias_init=nn.initializers.normal(stddev=1e-6),
                dot_general=product_of(self.dtype, rounded=rounded),
                name=name,
            )
            return of_any_weights(layer, rounded=rounded)

        hidden = split_over_batch(dense(self.mlp_dim, "Dense_0", rounded=False)(x))
        hidden = nn.gelu(hidden, approximate=True)  # big_vision: tanh, in every tower
        return dense(x.shape[-1], "Dense_1", rounded=True)(hidden)


class MultiHeadAttention(nn.Module):
    """Attention of `x` over `context`, with flax's parameter names and shapes.

    `query`, `key` and `value` kernels are (d, heads, head_dim), `out` is
    (heads, head_dim, d).
    """

    num_heads: int
    dtype: str | None = None
    implementation: Attention = "auto"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b nq d"],
        context: Float[Array, "b nk d"],
        mask: Bool[Array, "#b #nq nk"] | None = None,
        *,
        return_weights: bool = False,
    ) -> tuple[Float[Array, "b nq d"], Float[Array, "b k nq nk"] | None]:
        d = x.shape[-1]

        def dense(features: int | tuple[int, ...], axis: int | tuple[int, ...], name: str) -> Any:
            layer = nn.DenseGeneral(
                features,
                axis=axis,
                dtype=self.dtype,
                kernel_init=nn.initializers.xavier_uniform(),
                dot_general=product_of(self.dtype),
                name=name,
            )
            return of_any_weights(layer)

        heads = (self.num_heads, d // self.num_heads)
        query = dense(heads, -1, "query")(x)
        key = dense(heads, -1, "key")(context)
        value = dense(heads, -1, "value")(context)
        y = attention(query, key, value, mask, implementation=self.implementation)
        weights = attention_weights(query, key, mask) if return_weights else None
        return dense(d, (-2, -1), "out")(y), weights


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each added to its input."""

    size: Size
    dtype: str = "float32"
    attention: Attention = "auto"
    return_blocks: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "#b #n n"] | None = None
    ) -> tuple[Float[Array, "b n d"], Intermediates]:
        """Returns the tokens and, if `return_blocks`, what was added to them and the sums."""
        out: Intermediates = {}
        x = split_over_batch(x)
        y = nn.LayerNorm(name="LayerNorm_0")(x)
        y, _ = MultiHeadAttention(
            num_heads=self.size.num_heads,
            dtype=self.dtype,
            implementation=self.attention,
            name="MultiHeadDotProductAttention_0",
        )(y, y, mask)
        y = out["sa"] = split_over_batch(y)
        x = out["+sa"] = x + y
        y = nn.LayerNorm(name="LayerNorm_1")(x)
        y = Mlp(mlp_dim=self.size.mlp_dim, dtype=self.dtype, name="MlpBlock_0")(y)
        y = out["mlp"] = split_over_batch(y)
        x = out["+mlp"] = split_over_batch(x + y)
        return x, out if self.return_blocks else {}


class Encoder(nn.Module):
    """`size.depth` blocks, as a loop or one scan, and a final LayerNorm.

    The parameters of a scan are `encoderblock/...` with a leading depth axis,
    those of a loop `encoderblock_{i}/...`; the outputs are the same.
    """

    size: Size
    dtype: str = "float32"
    attention: Attention = "auto"
    scan: bool = False
    remat: str | None = None
    return_blocks: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "#b #n n"] | None = None
    ) -> tuple[Float[Array, "b n d"], Intermediates]:
        """Returns the normalised tokens and, per block, its intermediate values."""
        block: Any = Block
        if self.remat is not None:
            policy = remat_policy(self.remat)
            block = nn.remat(Block, prevent_cse=not self.scan, policy=policy)
        kw = {
            "size": self.size,
            "dtype": self.dtype,
            "attention": self.attention,
            # A scan keeps what it returns for every layer, whether or not anyone looks.
            "return_blocks": self.return_blocks,
        }
        out: Intermediates = {}
        if self.scan:
            # A scan must return what it was given: promote the residual stream
            # once here, as the first block of a loop does.
            x = x.astype(jnp.result_type(x.dtype, self.dtype))
            x, stacked = self._scanned(block, kw)(x, mask)
            for i in range(self.size.depth):
                out[f"block{i:02d}"] = jax.tree.map(operator.itemgetter(i), stacked)
        else:
            for i, layer in enumerate(self._layers(block, kw)):
                x, out[f"block{i:02d}"] = layer(x, mask)
        out["pre_ln"] = x
        return nn.LayerNorm(name="encoder_norm")(x), out

    def _fixed(self, names: list[str]) -> dict[str, Any] | None:
        """The parameters of these blocks, where nothing is made or recorded in this call."""
        params = self.variables.get("params", {})
        changing = any(self.is_mutable_collection(name) for name in ("params", "intermediates"))
        return None if changing or not params.keys() >= set(names) else dict(params)

    def _scanned(self, block: Any, kw: dict[str, Any]) -> Callable[..., Any]:
        """All blocks, from tokens and mask to the last one's tokens and what each returned."""
        params = self._fixed(["encoderblock"])
        # What is computed again is for training, whose weights are needed in float32 anyway.
        if params is not None and self.remat is None and converts_early(self.dtype):

            def run(x: jax.Array, mask: jax.Array | None) -> Any:
                def step(layer: Any, x: jax.Array) -> Any:
                    return block(parent=None, **kw).apply({"params": layer}, x, mask)

                return scan_layers(step, params["encoderblock"], x)

            return run
        broadcast: Any = nn.broadcast
        scanned = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=broadcast,
            length=self.size.depth,
        )
        return scanned(name="encoderblock", **kw)

    def _layers(self, block: Any, kw: dict[str, Any]) -> list[Callable[..., Any]]:
        """The blocks of a loop, in order."""
        names = [f"encoderblock_{i}" for i in range(self.size.depth)]
        params = self._fixed(names)
        if params is None:
            return [block(name=name, **kw) for name in names]

        # One function for all layers, which jax traces once: tracing is much of the time to a
        # first score. Put in line, or XLA for TPUs makes another program of some models.
        @functools.partial(jax.jit, inline=True)
        def layer(params: Any, x: jax.Array, mask: jax.Array | None) -> Any:
            return block(parent=None, **kw).apply({"params": params}, x, mask)

        return [functools.partial(layer, params[name]) for name in names]


class MapHead(nn.Module):
    """Multi-head attention pooling: one learned probe looks at all tokens.

    No norm on the probe, no residual from it. Always in the dtype of its
    parameters.  # big_vision: the MAP head has no dtype_mm
    """

    size: Size
    attention: Attention = "auto"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"] | None = None,
        *,
        return_weights: bool = False,
    ) -> tuple[Float[Array, "b d"], Float[Array, "b k n"] | None]:
        """Returns the pooled tokens and, when asked for, who looked where."""
        b, _, d = x.shape
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, d), x.dtype)
        # Weights may be stored in less than the tokens are: raised before the first matmul.
        probe = probe.astype(jnp.result_type(probe, x))
        # cuDNN has no float32, which is what this head computes in.
        implementation = "xla" if self.attention == "cudnn" else self.attention
        y, weights = MultiHeadAttention(
            num_heads=self.size.num_heads,
            implementation=implementation,
            name="MultiHeadDotProductAttention_0",
        )(
            jnp.tile(probe, (b, 1, 1)),
            x,
            None if mask is None else mask[:, None, :],
            return_weights=return_weights,
        )
        z = nn.LayerNorm(name="LayerNorm_0")(y)
        y = y + Mlp(mlp_dim=self.size.mlp_dim, name="MlpBlock_0")(z)
        return y[:, 0], None if weights is None else weights[:, :, 0]


def pooled(
    x: Float[Array, "b n d"],
    mask: Bool[Array, "b n"] | None = None,
    *,
    pool: Pool,
    size: Size,
    attention: Attention = "auto",
    map_weights: bool = False,
) -> tuple[Float[Array, "b d"] | None, Intermediates]:
    """One embedding of all tokens, None if `pool` is "none", and what led to it.

    To be called inside of the tower, whose parameters the head's are. The mean of "gap" is
    big_vision's `pool_type="gap"` and timm's "avg" with `fc_norm=False`: after the last norm.
    """
    out: Intermediates = {}
    if pool == "none":
        return None, out
    if pool == "gap":
        z = jnp.mean(x, axis=1, where=None if mask is None else mask[:, :, None])
    else:
        z, weights = MapHead(size=size, attention=attention, name="MAPHead_0")(
            x, mask, return_weights=map_weights
        )
        if weights is not None:
            out["map_weights"] = weights
    out["head_input"] = out["pre_logits"] = z
    return z, out


def remat_policy(name: str) -> Any:
    """The policy of `jax.checkpoint_policies` called `name`.

    Raises:
      ValueError: if jax has none of that name.
    """
    policy = getattr(jax.checkpoint_policies, name, None)
    if policy is None:
        known = [p for p in dir(jax.checkpoint_policies) if not p.startswith("_")]
        raise ValueError(f"remat {name!r} is none of jax.checkpoint_policies: {', '.join(known)}")
    return policy
