"""The programs of scoring, lowered for a mesh as `Scorer` runs them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from siglip_jax.config import Execution, Siglip
from siglip_jax.models import SiglipModel
from siglip_jax.plan.flops import image_flops, logit_flops, text_flops
from siglip_jax.programs import FSDP, REPLICATED, Program, make_mesh
from siglip_jax.programs.tasks import Task, program_function, program_inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A program that can be lowered for any batch.

    Attributes:
      task: what it does; an item is an image, a text, or a pair in training.
      devices: chips that share a batch.
      lower: from a batch, over all chips, to the program.
      flops: from a batch to the analytic count of one chip.
      weights: bytes of weights (and of an optimizer's state) on one chip.
      precision: as `Execution.precision`.
      fsdp: whether weights are split over the chips.
    """

    task: Task
    devices: int
    lower: Callable[[int], jax.stages.Lowered]
    flops: Callable[[int], int]
    weights: int
    precision: str
    fsdp: bool


def scoring_program(
    config: Siglip,
    devices: Any,
    execution: Execution,
    *,
    fsdp: bool = False,
    model_axis: int = 1,
) -> Program:
    """What a `Scorer` of this model on these devices compiles.

    Args:
      config: the model.
      devices: those that share a batch, or those of a topology.
      execution: how it is executed.
      fsdp: split the weights over the devices.
      model_axis: devices that share the labels.

    >>> from siglip_jax import find
    >>> program = scoring_program(find("siglip_b16_224").config, jax.devices()[:1], Execution())
    >>> dict(program.mesh.shape)
    {'data': 1, 'model': 1}
    """
    mesh = make_mesh(devices, model=model_axis)
    return Program(SiglipModel(config, execution), mesh, FSDP if fsdp else REPLICATED)


def scoring_workload(
    task: Task,
    program: Program,
    *,
    labels: int = 1024,
    patches: int | None = None,
) -> Workload:
    """Image tower, text tower or the logits of both as a `Workload`.

    Args:
      labels: how many an image is compared with, for the task "logits".
      patches: of an image, for a NaFlex model.

    >>> from siglip_jax import find
    >>> program = scoring_program(find("siglip_b16_224").config, jax.devices()[:1], Execution())
    >>> workload = scoring_workload("images", program)
    >>> workload.weights, workload.flops(1)  # bytes of the image tower, and operations an image
    (371536896, 35416584192)
    """
    config, chips = program.model.config, program.mesh.size
    params = program.abstract_params()

    def lower(batch: int) -> jax.stages.Lowered:
        return program_function(program, task).lower(params, *inputs(program, task, batch))

    def inputs(program: Program, task: Task, batch: int) -> tuple[Any, ...]:
        return program_inputs(program, task, batch, labels=labels, patches=patches)

    def flops(batch: int) -> int:
        if task == "logits":
            split = program.mesh.shape["data"], program.mesh.shape["model"]
            return logit_flops(config, batch // split[0], labels // split[1])
        each = image_flops(config, patches) if task == "images" else text_flops(config)
        return batch // chips * each

    part = {"images": ("img",), "texts": ("txt",)}.get(task, ())
    held = {name: params[name] for name in part}
    return Workload(
        task=task,
        devices=chips,
        lower=lower,
        flops=flops,
        weights=shard_bytes(held),
        precision=_precision(task, program.model.execution),
        fsdp=any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(params)),
    )


def shard_bytes(tree: Any) -> int:
    """Bytes that one device holds of arrays that have shardings."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _precision(task: Task, execution: Execution) -> str:
    dtype = execution.text_dtype if task == "texts" else execution.dtype
    # bfloat16 operands are one pass at any precision.
    return "default" if dtype == "bfloat16" else str(execution.precision)
