"""The hosts that chips come with: cores that decode, and their network.

TPU: Cloud TPU's VM types and networks of a host. Those of v5e and v5p, and the network of v6e, are
in its documentation (https://docs.cloud.google.com/tpu/docs/v5p and .../v6e); the others have not
been looked up, which their source says. A vCPU is half a core. GPU: the machine that
benchmarks/RESULTS.md was measured on. Nothing here imports jax.
"""

from typing import NamedTuple


class Host(NamedTuple):
    """One host of a slice.

    Attributes:
      chips: on it.
      cores: physical ones.
      network: bytes a second; None where nothing is known.
      source: where this is from.
    """

    chips: int
    cores: int
    network: float | None
    source: str


_GIGABIT = 1e9 / 8
_V5E = "112 vCPUs with 4 chips (ct5lp-hightpu-4t), 25 Gbit/s a chip"
_V5P = "208 vCPUs with 4 chips (ct5p-hightpu-4t), 50 Gbit/s a chip"
_V6E = "180 vCPUs with 4 chips (ct6e-standard-4t; not looked up), 100 Gbit/s a chip"
HOSTS: dict[str, Host] = {
    "v4": Host(4, 120, None, "240 vCPUs with 4 chips (ct4p-hightpu-4t); not looked up"),
    "v5e": Host(4, 56, 100 * _GIGABIT, _V5E),
    "v5p": Host(4, 104, 200 * _GIGABIT, _V5P),
    "v6e": Host(4, 90, 400 * _GIGABIT, _V6E),
    "H100": Host(1, 16, None, "16 cores with a GPU, as the machine with an H200 had"),
    "H200": Host(1, 16, None, "16 cores with a GPU, as the machine that was measured"),
}
