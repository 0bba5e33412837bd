"""What a model refuses at trace: inputs that it would turn into embeddings of nothing."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from siglip_jax.config import NaFlexVision, Vision
from siglip_jax.preprocessing.naflex import Patches


def check_images(image: Any, vision: Vision | NaFlexVision) -> None:
    """Refuses images that are not floats or not channels last; dtypes and shapes only.

    Works on arrays and on tracers, so that `apply` under `jit` raises while it is traced.

    Raises:
      ValueError: says what is expected, what came and what to do.

    >>> from siglip_jax import find
    >>> check_images(np.zeros((1, 3, 224, 224), np.float32), find("siglip_b16_224").config.vision)
    Traceback (most recent call last):
      ...
    ValueError: expected images of shape (b, 224, 224, 3), got (1, 3, 224, 224), channels first; ...
    """
    if isinstance(vision, NaFlexVision):
        if not isinstance(image, Patches):
            raise ValueError(
                f"expected Patches, which this NaFlex model takes, got {_described(image)}; "
                "scorer.preprocess(image, ready=True) makes them"
            )
        _check_float(image.patches, "patches")
        return
    if isinstance(image, Patches):
        raise ValueError(
            "expected images of a fixed resolution, which this model takes, got Patches"
        )
    check_channels(np.shape(image), vision.res, "b")
    _check_float(image, "images")


def check_channels(shape: tuple[int, ...], res: int, count: str) -> None:
    """Refuses images with channels first; `count` is what the message calls their number."""
    if len(shape) == 4 and shape[1] == 3 and shape[3] != 3:
        raise ValueError(
            f"expected images of shape ({count}, {res}, {res}, 3), got {shape}, channels first; "
            "pass images.transpose(0, 2, 3, 1)"
        )


def _check_float(array: Any, what: str) -> None:
    dtype = jnp.result_type(array)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"expected float {what}, normalised as the model's profile says (from -1 to 1 unless "
            f"it says otherwise), got {dtype}; scorer.preprocess(image, ready=True) or "
            "siglip_jax.models.value_range makes them, and scorer.embed_images takes uint8"
        )


def _described(image: Any) -> str:
    return f"{jnp.result_type(image)} of shape {np.shape(image)}"
