"""Published numbers of accelerator chips: peak FLOP/s, memory, bandwidth.

TPU: https://docs.cloud.google.com/tpu/docs/v4, .../v5e, .../v5p and .../v6e, the tables
"System architecture". GPU: NVIDIA's data sheets of the H100 (SXM) and the H200, dense rates,
without sparsity.

Memory of a TPU is what libtpu 0.0.42 lets a program have, read from what it says of one that is
too large: a little less than is published (16, 32, 32 and 96 GiB), some of which it keeps.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip.

    Attributes:
      name: as in a topology, such as v5e.
      kind: what jax calls the device (`device_kind`).
      flops: per second, bfloat16 matmuls.
      flops_float32: the same for float32 at precision "highest". A TPU takes six bfloat16
        passes for it (`jax.lax.Precision`).
      memory: bytes of HBM that a program can have.
      bandwidth: bytes of HBM per second.
      dimensions: of a topology of these chips, such as 2 for 4x4.
    """

    name: str
    kind: str
    flops: float
    flops_float32: float
    memory: float
    bandwidth: float
    dimensions: int = 0

    def peak(self, precision: str) -> float:
        """FLOP/s of matmuls at `Execution.precision`."""
        return self.flops_float32 if precision == "highest" else self.flops


def _tpu(name: str, kind: str, tflops: float, gibibytes: float, gbps: float) -> Chip:
    return Chip(
        name=name,
        kind=kind,
        flops=tflops * 1e12,
        flops_float32=tflops * 1e12 / 6,
        memory=gibibytes * 2**30,
        bandwidth=gbps * 1e9,
        dimensions=3 if name in ("v4", "v5p") else 2,
    )


CHIPS: tuple[Chip, ...] = (
    _tpu("v4", "TPU v4", 275, 30.75, 1228),
    _tpu("v5e", "TPU v5 lite", 197, 15.75, 819),
    _tpu("v5p", "TPU v5", 459, 95.74, 2765),
    _tpu("v6e", "TPU v6 lite", 918, 31.25, 1638),
    Chip(
        name="H100",
        kind="NVIDIA H100 80GB HBM3",
        flops=989.4e12,
        flops_float32=66.9e12,
        memory=80e9,
        bandwidth=3.35e12,
    ),
    Chip(
        name="H200",
        kind="NVIDIA H200",
        flops=989.4e12,
        flops_float32=66.9e12,
        memory=141e9,
        bandwidth=4.8e12,
    ),
)


def chip_of(kind: str) -> Chip | None:
    """The chip that jax calls `kind`; None for one that is not in the table.

    >>> chip_of("TPU v5 lite").name, chip_of("cpu")
    ('v5e', None)
    """
    return next((chip for chip in CHIPS if chip.kind == kind), None)
