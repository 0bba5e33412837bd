"""LoRA: two thin matrices beside each chosen kernel are trained, and everything else is frozen.

A kernel `x/kernel` with inputs and outputs (i, o) has `x/lora_a` (i, rank) and `x/lora_b`
(rank, o) beside it, and the model runs with `kernel + alpha / rank · a @ b`, as PEFT's does
(arXiv 2106.09685). `b` begins as nought, so that the model begins as it was.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from siglip_jax.config import Siglip
from siglip_jax.converters.adapters import write_adapter
from siglip_jax.messages import suggestions
from siglip_jax.programs.sharding import Rules, sharding_of
from siglip_jax.training.recipe_tables import Lora
from siglip_jax.weights.layout import block_name, split_block_name
from siglip_jax.weights.tree import flatten, nested

A, B = "lora_a", "lora_b"


class Sizes(NamedTuple):
    """Of one kernel: inputs, outputs, and how many layers are stacked in it (None: one alone)."""

    inputs: int
    outputs: int
    layers: int | None

    def factors(self, rank: int) -> dict[str, tuple[int, ...]]:
        stack = () if self.layers is None else (self.layers,)
        return {A: (*stack, self.inputs, rank), B: (*stack, rank, self.outputs)}


def targets(lora: Lora, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Sizes]:
    """The layers that are trained, by their names without `/kernel`.

    A target is the name of a layer in a block, such as "query" or "Dense_0", or a regular
    expression for the whole name, such as "img/.*/(query|value)".

    Raises:
      ValueError: if a target fits no layer.

    >>> shapes = {"txt/Encoder_0/encoderblock_0/MlpBlock_0/Dense_0/kernel": (8, 32)}
    >>> list(targets(Lora(rank=2, targets=("Dense_0",)), shapes).values())
    [Sizes(inputs=8, outputs=32, layers=None)]
    """
    layers = {
        name.removesuffix("/kernel"): shape
        for name, shape in shapes.items()
        if name.endswith("/kernel") and split_block_name(name) is not None
    }
    found: dict[str, Sizes] = {}
    for target in lora.targets:
        fits = [name for name in layers if _fits(target, name)]
        if not fits:
            known = sorted({name.rpartition("/")[2] for name in layers})
            near = suggestions(target, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"lora.targets: {target!r} fits no layer of a block; {hint}")
        found |= {name: _sizes(name, layers[name]) for name in fits}
    return found


def _fits(target: str, name: str) -> bool:
    return target == name.rpartition("/")[2] or re.fullmatch(target, name) is not None


def _sizes(name: str, shape: tuple[int, ...]) -> Sizes:
    block = split_block_name(f"{name}/kernel")
    assert block is not None, "only layers of blocks are targets"
    layers = shape[0] if block.layer is None else None
    inner = shape if layers is None else shape[1:]
    # The output projection takes (heads, width) in; all others have one dimension of inputs.
    split = 2 if name.endswith("/out") else 1
    return Sizes(math.prod(inner[:split]), math.prod(inner[split:]), layers)


def with_factors(params: Any, lora: Lora, seed: int, mesh: Mesh, rules: Rules) -> Any:
    """The tree with the factors of every target beside its kernel, on the devices of `mesh`."""
    flat = flatten(params)
    chosen = targets(lora, {name: leaf.shape for name, leaf in flat.items()})
    place, key = sharding_of(mesh, rules), jax.random.key(seed)
    for index, (name, sizes) in enumerate(chosen.items()):
        shapes = sizes.factors(lora.rank)
        # As PEFT begins: uniform, within one over the square root of the inputs.
        bound = 1 / math.sqrt(sizes.inputs)
        first = jax.random.uniform(
            jax.random.fold_in(key, index), shapes[A], jnp.float32, -bound, bound
        )
        for part, value in ((A, first), (B, jnp.zeros(shapes[B], jnp.float32))):
            flat[f"{name}/{part}"] = jax.device_put(value, place(f"{name}/{part}", value.shape))
    return nested(flat)


def abstract_factors(params: Any, lora: Lora) -> Any:
    """`with_factors` of shapes alone."""
    flat = flatten(params)
    for name, sizes in targets(lora, {k: leaf.shape for k, leaf in flat.items()}).items():
        for part, shape in sizes.factors(lora.rank).items():
            flat[f"{name}/{part}"] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return nested(flat)


def factor_names(names: Iterable[str]) -> list[str]:
    """Those of `names` that are factors: all that is trained."""
    return [name for name in names if name.rpartition("/")[2] in (A, B)]


def merged(params: Any, lora: Lora) -> Any:
    """The model's own tree: the factors in their kernels, as the model runs."""
    flat = flatten(params)
    scale = lora.scale
    for name in [name.removesuffix(f"/{A}") for name in flat if name.endswith(f"/{A}")]:
        a, b = flat.pop(f"{name}/{A}"), flat.pop(f"{name}/{B}")
        kernel = flat[f"{name}/kernel"]
        product = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
        flat[f"{name}/kernel"] = kernel + scale * product.reshape(kernel.shape)
    return nested(flat)


def save_adapter(
    folder: Path, params: Any, lora: Lora, config: Siglip, *, base: str | None
) -> Path:
    """Writes the factors as a PEFT adapter of transformers' model; whole or not at all.

    Args:
      params: the tree of a finished run, on the host.
      base: repository of the model that it is of, if it has one.
    """
    flat = {name: np.asarray(leaf) for name, leaf in flatten(params).items()}
    factors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in [name.removesuffix(f"/{A}") for name in flat if name.endswith(f"/{A}")]:
        a, b = flat[f"{name}/{A}"], flat[f"{name}/{B}"]
        block = split_block_name(f"{name}/kernel")
        assert block is not None, "only layers of blocks are targets"
        if block.layer is not None:
            factors[f"{name}/kernel"] = a, b
            continue
        for layer in range(len(a)):
            factors[block_name(block.encoder, layer, block.leaf)] = a[layer], b[layer]
    write_adapter(folder, factors, config, rank=lora.rank, alpha=lora.alpha or lora.rank, base=base)
    return folder
