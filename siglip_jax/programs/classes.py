"""The compiled function of a classifier: images to the logits of its classes."""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from siglip_jax.classifier import Classifier, Pooling
from siglip_jax.models import value_range
from siglip_jax.preprocessing import Patches
from siglip_jax.programs.sharding import put
from siglip_jax.programs.towers import Program, in_pieces, tokens


def pooled(out: Mapping[str, Any], images: Any, pooling: Pooling) -> Float[Array, "b d"]:
    """What a classifier is given: `out` is what the model returned for `images` beside z."""
    if pooling == "map":
        return out["img/head_input"].astype(jnp.float32)
    patches = out["img/encoded"].astype(jnp.float32)
    if not isinstance(images, Patches):
        return patches.mean(axis=1)
    valid = (images.type == 1)[:, :, None]
    # Padding has outputs too, and counts for nothing.
    return jnp.where(valid, patches, 0.0).sum(axis=1) / valid.sum(axis=1)


class ClassProgram:
    """The image tower of a `Program` with a classifier on it.

    Attributes:
      images: (params, uint8 or float32 (b, res, res, 3), or `Patches`) -> logits (b, classes).
    """

    def __init__(self, program: Program, classifier: Classifier) -> None:
        self.mesh, self.batch_sharding = program.mesh, program.batch_sharding
        self.model = program.model
        model, everywhere = program.model, program.everywhere
        apply: Any = model.apply

        def head_input(params: Any, images: Any) -> Float[Array, "b d"]:
            return pooled(apply({"params": params}, images)[2], images, classifier.pooling)

        def logits(params: Any, head: Any, images: Any) -> Float[Array, "b classes"]:
            if not isinstance(images, Patches) and images.dtype == jnp.uint8:
                images = value_range(images, *program.pixels)
            with program.tracing():
                piece = program.piece(tokens=tokens(images, model.config))
                x = in_pieces(lambda part: head_input(params, part), images, piece)
                return x @ head["kernel"] + head["bias"][None]

        self._run = jax.jit(
            logits,
            in_shardings=(program.params_sharding, everywhere, program.batch_sharding),
            out_shardings=everywhere,
            **program.options,
        )
        # Float32 whatever the tower is kept in: it is small, and the last to round.
        weights = {"kernel": classifier.kernel, "bias": classifier.bias}
        self._head = {k: put(np.asarray(v, np.float32), everywhere) for k, v in weights.items()}

    def images(self, params: Any, images: Any) -> jax.Array:
        return self._run(params, self._head, images)
