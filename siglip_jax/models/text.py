"""The text tower: bidirectional, pooled at the last position.

Follows big_vision `models/proj/image_text/text_transformer.py` at 0127fb6 with
`pool_type="last"`. Differs in not computing `vocab_logits`, which nothing uses.
"""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from siglip_jax.config import Execution, Text
from siglip_jax.models.layers import of_any_weights
from siglip_jax.models.transformer import Encoder, Intermediates


class TextTower(nn.Module):
    """Token and position embeddings, blocks, the last position, a projection."""

    config: Text
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self, text: Int[Array, "b n"], *, return_blocks: bool = False
    ) -> tuple[Float[Array, "b d"], Intermediates]:
        """Embeds token ids; not yet normalised to unit norm.

        Ids must be padded to `config.length` and lie inside the vocabulary
        (the tokenizer sees to both).

        Raises:
          ValueError: if the texts have another length: padding is looked at, so
            a shorter batch would silently give other embeddings.
        """
        config, run = self.config, self.execution
        out: Intermediates = {}
        if text.ndim != 2 or text.shape[1] != config.length:
            raise ValueError(
                f"expected token ids of shape (b, {config.length}), got {text.shape}; "
                f"pad every text to {config.length} tokens"
            )
        d = config.size.width
        x = of_any_weights(nn.Embed(config.vocab_size, d, name="Embed_0"))(text)
        # Weights may be stored in less than the tower computes in: raised before the sum.
        x = out["embedded"] = x.astype(jnp.result_type(x, run.text_dtype))
        posemb = self.param(
            "pos_embedding",
            nn.initializers.normal(stddev=1 / np.sqrt(d)),
            (1, config.length, d),
            x.dtype,
        )
        x, encoder = Encoder(
            size=config.size,
            dtype=run.text_dtype,
            attention=run.attention,
            scan=run.scan_text,
            remat=run.remat,
            return_blocks=return_blocks,
            name="Encoder_0",
        )(x + posemb)  # big_vision: neither a causal nor a padding mask
        out |= {"transformed": x, **encoder}
        # big_vision: always the last position, which holds EOS or, in SigLIP 2, padding.
        x = out["pre_logits"] = x[:, -1]
        if config.head is not None:
            x = out["logits"] = of_any_weights(nn.Dense(config.head, name="head"))(x)
        return jnp.asarray(x), out
