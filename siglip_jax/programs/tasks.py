"""The tasks of a model, and what the compiled function of each takes."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from siglip_jax.models import abstract_inputs
from siglip_jax.preprocessing import Patches
from siglip_jax.programs.towers import Program

Task = Literal["images", "texts", "logits", "train"]


def program_function(program: Program, task: Task) -> Any:
    """The jitted function of a task."""
    return {"images": program.images, "texts": program.texts, "logits": program.logits}[task]


def program_inputs(
    program: Program, task: Task, batch: int, *, labels: int = 1024, patches: int | None = None
) -> tuple[Any, ...]:
    """Shapes and dtypes of what the function takes beside the weights."""
    config = program.model.config
    images, ids = abstract_inputs(config, batch, patches)
    if task == "texts":
        return (ids,)
    if task == "logits":
        d = config.embed_dim
        return tuple(jax.ShapeDtypeStruct((n, d), jnp.float32) for n in (batch, labels))
    if not isinstance(images, Patches):
        images = jax.ShapeDtypeStruct(images.shape, jnp.uint8)
    return (images,)
