"""Devices to compile for: a TPU topology, ahead of time, or those of this machine.

libtpu compiles for any slice without a TPU: `jax.experimental.topologies`.
"""

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from siglip_jax.messages import reason, suggestions
from siglip_jax.plan.chips import CHIPS, Chip, chip_of
from siglip_jax.programs.memory import device_memory

SLICES = (
    *(f"{chip}:{shape}" for chip in ("v5e", "v6e") for shape in (
        "1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"
    )),
    *(f"{chip}:{shape}" for chip in ("v4", "v5p") for shape in (
        "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"
    )),
)  # fmt: skip


class Slice(NamedTuple):
    """`name` as asked for; `chip` is None where nothing is published of it."""

    name: str
    devices: Sequence[Any]
    chip: Chip | None

    @property
    def memory(self) -> float | None:
        """Bytes that a program can have on one device; None if unknown."""
        if self.name == "local" and (limit := device_memory(self.devices).limit):
            return limit
        return self.chip.memory if self.chip else None


def find_slice(name: str) -> Slice:
    """The devices called `name`: "local", or a slice such as v5e:4x4 or v5p:2x2x1.

    Raises:
      ValueError: if there is no such slice (similar names are suggested), or no libtpu.

    >>> find_slice("local").name
    'local'
    >>> find_slice("v5e:4x5")
    Traceback (most recent call last):
      ...
    ValueError: no topology is called 'v5e:4x5'; did you mean ...
    """
    import jax

    if name == "local":
        devices = jax.devices()
        return Slice(name, devices, chip_of(devices[0].device_kind))
    chip, sides = _parse(name)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"compiling for {name} needs libtpu, the compiler for TPUs; it runs without one: "
            'pip install "jax[tpu]"'
        )
    # No TPU here is asked what it is; libtpu takes half a minute to find that there is none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
    # Nothing runs on a TPU, so that several processes may compile at once.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if chip.name == "v4":
        options["chip_config_name"] = "megacore"  # both cores of a chip as one device
    if any(side % host for side, host in zip(sides, (2, 2, 1), strict=False)):
        # Slices smaller than a host's 2x2 chips.
        bounds = [min(side, host) for side, host in zip(sides, (2, 2, 1), strict=False)]
        options["chips_per_host_bounds"] = (*bounds, *[1] * (3 - len(bounds)))
    try:
        topology = topologies.get_topology_desc(topology_name=name, platform="tpu", **options)
    except Exception as error:  # jax raises several types here
        raise ValueError(f"libtpu does not know the slice {name}: {reason(error)}") from error
    return Slice(name, topology.devices, chip)


def _parse(name: str) -> tuple[Chip, list[int]]:
    head, _, shape = name.partition(":")
    chip = next((chip for chip in CHIPS if chip.name == head and chip.dimensions), None)
    if chip is None or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
        raise ValueError(_unknown(name))
    sides = [int(side) for side in shape.split("x")]
    if len(sides) != chip.dimensions:
        raise ValueError(_unknown(name))
    if math.prod(sides) > 2**14 or any(side > 2 and side % 2 for side in sides):
        raise ValueError(_unknown(name))
    return chip, sides


def _unknown(name: str) -> str:
    gpus = [chip.name for chip in CHIPS if not chip.dimensions]
    if re.fullmatch(rf"({'|'.join(gpus)})(:[1-9]\d*)?", name, re.I):
        return (
            f"{name} is a GPU, for which nothing is compiled ahead of time; give a TPU slice, such "
            "as v5e:4x4, or plan a bulk job on it (plan --items N)"
        )
    near = suggestions(name, [*SLICES, *gpus, "local"], 3)
    known = ", ".join(near or ["v5e:4x4", "v6e:2x4", "v4:2x2x1", "v5p:2x2x1", "local"])
    return f"no topology is called {name!r}; did you mean {known}?"
