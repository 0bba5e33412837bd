"""SigLIP: an image tower, a text tower, a temperature and a bias.

Follows big_vision `models/proj/image_text/two_towers.py` at 0127fb6.
"""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from siglip_jax import config as configs
from siglip_jax.config import Execution
from siglip_jax.models.inputs import check_images
from siglip_jax.models.naflex import NaFlexVisionTower
from siglip_jax.models.text import TextTower
from siglip_jax.models.trained import not_float16
from siglip_jax.models.transformer import Intermediates
from siglip_jax.models.vision import VisionTower
from siglip_jax.preprocessing.naflex import Patches


def normalize(z: Float[ArrayLike, "b d"]) -> Float[Array, "b d"]:
    """Unit-norm rows.

    >>> normalize(jnp.array([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    # big_vision: 1e-8 is added to the norm, where others clip it or add nothing.
    z = jnp.asarray(z)
    norm = cast(jax.Array, jnp.linalg.norm(z, axis=1, keepdims=True))
    return z / (norm + 1e-8)


def logits(
    zimg: Float[ArrayLike, "i d"],
    ztxt: Float[ArrayLike, "t d"],
    t: Float[ArrayLike, "1"],
    b: Float[ArrayLike, "1"],
) -> Float[Array, "i t"]:
    """`exp(t) · zimg · ztxt + b` for every image and text; `t` is the parameter.

    Probabilities are the sigmoid of it.

    >>> z = jnp.eye(2)
    >>> logits(z, z, t=jnp.log(jnp.array([10.0])), b=jnp.array([-10.0])).round(3).tolist()
    [[0.0, -10.0], [-10.0, 0.0]]
    """
    t, b = _raised(t), _raised(b)
    return jnp.matmul(zimg, jnp.transpose(ztxt)) * jnp.exp(t)[None] + b[None]


def _raised(scalar: ArrayLike) -> jax.Array:
    """At least float32: a bfloat16 exponential is off by up to 0.4%."""
    x = jnp.asarray(scalar)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class SiglipModel(nn.Module):
    """Both towers, either of which can be called without the other, or one tower alone.

    Names begin with `img/` and `txt/` in either case; the temperature `t` and the bias `b`
    belong to both towers, and one alone has none.

    >>> from siglip_jax.checkpoints import find
    >>> model = SiglipModel(find("siglip_b16_224").config)
    >>> image, text = jnp.zeros((1, 224, 224, 3)), jnp.zeros((1, 64), jnp.int32)
    >>> tree = jax.eval_shape(model.init, jax.random.key(0), image, text)["params"]
    >>> sum(leaf.size for leaf in jax.tree.leaves(tree))
    203155970
    """

    config: configs.Siglip
    execution: Execution = Execution()
    temperature_init: float = 10.0
    bias_init: float = -10.0

    @nn.compact
    def __call__(
        self,
        image: ArrayLike | Patches | None = None,
        text: Int[ArrayLike, "t n"] | None = None,
        *,
        map_weights: bool = False,
        return_blocks: bool = False,
    ) -> tuple[Float[Array, "i d"] | None, Float[Array, "t d"] | None, Intermediates]:
        """Returns `zimg`, `ztxt` (unit-norm rows, None where not given) and `out`.

        `zimg` is None, too, of an image tower with `pool="none"`.

        Args:
          image: (b, res, res, 3) floats in the profile's range, [-1, 1] for released
            weights, or `Patches` for a NaFlex model. uint8 and channels first are refused.
          text: (b, length) token ids.
          map_weights: also return where the pooling head looked, as
            `out["img/map_weights"]` of shape (b, heads, n).
          return_blocks: also return what every block computes, as big_vision does:
            `out["img/encoder"]["block03"]["+mlp"]`, `out["txt/block03"]["sa"]`, ...

        `out` names intermediate values as big_vision does: `img/encoded` (dense
        features), `img/pre_logits`, `txt/transformed`, `img/norm`, `t` (already
        exponentiated), `t/parameter`, `b`, ... What a jitted caller does not
        return costs nothing.
        """
        zimg, ztxt = None, None
        out: Intermediates = {}
        if image is not None:
            check_images(image, self.config.image_tower)
            zimg, details = self._vision_tower()(
                jax.tree.map(cast(Callable[[Any], jax.Array], jnp.asarray), image),
                map_weights=map_weights,
                return_blocks=return_blocks,
            )
            zimg = _finish("img", zimg, details, out)
        if text is not None:
            ztxt, details = TextTower(self.config.text_tower, self.execution, name="txt")(
                jnp.asarray(text), return_blocks=return_blocks
            )
            ztxt = _finish("txt", ztxt, details, out)
        if self.execution.weights != "float16" and not self.is_initializing():
            zimg, ztxt = not_float16((zimg, ztxt), self.variables.get("params", {}))
        if self.config.tower is not None:
            return zimg, ztxt, out
        t = self.param("t", nn.initializers.constant(jnp.log(self.temperature_init)), (1,))
        b = self.param("b", nn.initializers.constant(self.bias_init), (1,))
        out |= {"t": jnp.exp(_raised(t)), "t/parameter": t, "b": _raised(b)}
        return zimg, ztxt, out

    def _vision_tower(self) -> nn.Module:
        vision = self.config.image_tower
        tower: Any = NaFlexVisionTower if self.config.naflex else VisionTower
        return tower(vision, self.execution, name="img")


def _finish(tower: str, z: Any, details: Intermediates, out: Intermediates) -> Any:
    out |= {f"{tower}/{name}": value for name, value in details.items()}
    if z is None:
        return None
    # A tower whose weights are bfloat16 gives bfloat16, too coarse for unit-norm rows.
    z = z.astype(jnp.float32)
    out[f"{tower}/norm"] = jnp.linalg.norm(z, axis=1, keepdims=True)
    out[f"{tower}/normalized"] = normalize(z)
    return out[f"{tower}/normalized"]


def abstract_inputs(
    config: configs.Siglip, batch: int = 1, patches: int | None = None
) -> tuple[Any, Any]:
    """Shapes and dtypes of one batch of images and texts, for `eval_shape` and `lower`.

    None for a tower that there is not. A NaFlex batch has `patches` patches an image, by
    default its training grid's.

    >>> from siglip_jax import find
    >>> images, texts = abstract_inputs(find("siglip_b16_224").config, 8)
    >>> images.shape, texts.shape
    ((8, 224, 224, 3), (8, 64))
    """
    vision, text = config.vision, config.text
    ids = None if text is None else jax.ShapeDtypeStruct((batch, text.length), jnp.int32)
    if isinstance(vision, configs.NaFlexVision):
        n = patches or vision.posemb_grid**2
        index = jax.ShapeDtypeStruct((batch, n), jnp.int32)
        pixels = jax.ShapeDtypeStruct((batch, n, vision.patch**2 * 3), jnp.float32)
        return Patches(pixels, index, index, index), ids
    if vision is None:
        return None, ids
    return jax.ShapeDtypeStruct((batch, vision.res, vision.res, 3), jnp.float32), ids
