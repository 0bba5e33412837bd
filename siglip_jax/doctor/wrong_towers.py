"""A model's towers run the wrong way: exact GELU, a text mask, another pooling.

The model code has no such switches and gets none. Flax lets a caller step between modules
(`flax.linen.intercept_methods`), and that is enough: what goes into the second layer of an
MLP, what mask an encoder is given, and which of its positions comes out last.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from siglip_jax.config import Vision
from siglip_jax.doctor.settings import ImageSettings
from siglip_jax.doctor.wrong_inputs import (
    TextInputs,
    fixed_inputs,
    fixed_posemb,
    naflex_inputs,
)
from siglip_jax.models import SiglipModel
from siglip_jax.models.transformer import Encoder, Mlp
from siglip_jax.preprocessing import Patches
from siglip_jax.scoring.batches import batches

_TEXTS_A_STEP = 16  # one setting changes at most the twelve bundled texts


class Towers:
    """Both towers of a model on one device, compiled once for each shape and activation."""

    def __init__(self, model: SiglipModel, params: Any) -> None:
        self.model: Any = model  # a flax module is hashable, whatever its annotations say
        self.params = jax.device_put(params, jax.devices()[0])
        image = self.params.get("img", {})
        self._table = np.asarray(image["pos_embedding"]) if image else None

    def texts(self, texts: TextInputs, activation: str) -> np.ndarray:
        """Unit-norm embeddings (n, d)."""
        run = _text_program(self.model, activation)
        rows = [
            np.asarray(run(self.params, *batch))[:count]
            for batch, count in batches(tuple(texts), _TEXTS_A_STEP)
        ]
        return np.concatenate(rows)

    def images(
        self, pictures: Sequence[np.ndarray], settings: ImageSettings, grey: int | None = None
    ) -> np.ndarray:
        """Unit-norm embeddings (n, d); with a seed `grey`, of images a grey level off at random."""
        vision = self.model.config.image_tower
        assert self._table is not None  # there is an image tower
        if not isinstance(vision, Vision):
            patches, shift = naflex_inputs(pictures, settings, vision, self._table)
            valid = patches.type[..., None] == 1
            patches = patches._replace(patches=_off(patches.patches, grey) * valid)
            run = _image_program(self.model, settings.activation)
            return np.asarray(run(self.params, Patches(*patches), shift))
        grown: Any = self.model
        if settings.res != vision.res:
            grown = self.model.clone(config=self.model.config.at_resolution(settings.res))
        params = self.params
        posemb = fixed_posemb(self._table, settings, vision)
        if posemb is not self._table:
            params = {**params, "img": {**params["img"], "pos_embedding": jnp.asarray(posemb)}}
        run = _image_program(grown, settings.activation)
        inputs = _off(fixed_inputs(pictures, settings), grey)
        return np.asarray(run(params, inputs, np.float32(0)))


def _off(pixels: np.ndarray, seed: int | None) -> np.ndarray:
    """Pixels in [-1, 1], each a grey level lower, higher or neither."""
    if seed is None:
        return pixels
    levels = np.random.default_rng(seed).integers(-1, 2, pixels.shape)
    return np.clip(pixels + levels / np.float32(127.5), -1, 1).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _text_program(model: Any, activation: str) -> Any:
    @jax.jit
    def run(params, ids, keys, pool):
        with _precisely(model), with_gelu(activation), nn.intercept_methods(_seen(keys, pool)):
            return model.apply({"params": params}, None, ids)[1]

    return run


@functools.lru_cache(maxsize=8)
def _image_program(model: Any, activation: str) -> Any:
    @jax.jit
    def run(params, images, shift):
        with _precisely(model), with_gelu(activation), nn.intercept_methods(_shifted(shift)):
            return model.apply({"params": params}, images)[0]

    return run


def _precisely(model: SiglipModel) -> Any:
    return jax.default_matmul_precision(model.execution.precision)


@contextlib.contextmanager
def with_gelu(activation: str) -> Iterator[None]:
    """While a model is traced inside this, its MLPs have this activation."""
    before: list[Any] = []

    def between_layers(layer, args, kwargs, context):
        module = context.module
        if not isinstance(module, nn.Dense) or not isinstance(module.parent, Mlp):
            return layer(*args, **kwargs)
        if module.name == "Dense_0":
            before[:] = [layer(*args, **kwargs)]
            return before[0]
        # What arrives here went through the model's own GELU; it is put aside.
        return layer(nn.gelu(before.pop(), approximate=False))

    if activation == "tanh":
        yield
        return
    with nn.intercept_methods(between_layers):
        yield


def _seen(keys: Any, pool: Any) -> Any:
    """The text encoder sees the positions `keys`, and position `pool` comes out last."""

    def around_encoder(encode, args, kwargs, context):
        if not isinstance(context.module, Encoder) or context.method_name != "__call__":
            return encode(*args, **kwargs)
        tokens, out = encode(args[0], keys[:, None, :])
        return tokens.at[:, -1].set(tokens[jnp.arange(len(pool)), pool]), out

    return around_encoder


def _shifted(shift: Any) -> Any:
    """The difference of two position embeddings is added where the right one will be."""

    def after_stem(stem, args, kwargs, context):
        y = stem(*args, **kwargs)
        if context.module.name == "embedding" and isinstance(context.module, nn.Dense):
            return y + shift
        return y

    return after_stem
