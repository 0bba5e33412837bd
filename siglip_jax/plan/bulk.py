"""A bulk job of any number of images on a slice: how long, and what bounds it.

From the roofline of the image tower, and rates that were measured. Nothing here imports jax.
"""

import dataclasses
import math
from typing import Any, Literal

from siglip_jax.plan.hosts import Host
from siglip_jax.plan.measured import DECODING, EMBEDDING
from siglip_jax.plan.shard_costs import BYTES

Side = Literal["the chips", "decoding in the processes", "the hosts' cores", "the network"]
_ROW = 48  # bytes of a row beside the embedding: key, stamp, width and height
_ENTRY = 400  # bytes of a shard's entry in the ledger


@dataclasses.dataclass(frozen=True, kw_only=True)
class BulkPlan:
    """Embedding `items` images. Rates are images a second, over all chips and hosts.

    Attributes:
      chips, hosts, cores: there are; `cores` of each host.
      processes: of each host.
      peak: that the chips could do if every matmul ran at their published peak.
      device: that they do at the share of it that was measured, or at the bytes they access.
      decode: that the processes decode.
      decode_cores: that all cores would, each in a process of its own.
      network: that can be read; None where the network is unknown.
      cores_needed: of each host, to keep up with the chips.
      read, written: bytes of images, and of embeddings with their rows and the ledger.
      shards: of the job.
      assumptions: a sentence each.
    """

    items: int
    chips: int
    hosts: int
    cores: int
    processes: int
    peak: float
    device: float
    decode: float
    decode_cores: float
    network: float | None
    cores_needed: float
    read: int
    written: int
    shards: int
    assumptions: tuple[str, ...]

    @property
    def rate(self) -> float:
        """Images a second: of the slowest side."""
        return min(self._sides().values())

    @property
    def bound(self) -> Side:
        """The slowest side."""
        sides = self._sides()
        return min(sides, key=sides.__getitem__)

    @property
    def hours(self) -> float:
        """Of the whole job."""
        return self.items / self.rate / 3600

    @property
    def hours_all_cores(self) -> float:
        """The same if every core of the hosts decoded in a process of its own."""
        sides = self._sides() | {"decoding in the processes": math.inf}
        return self.items / min(sides.values()) / 3600

    @property
    def chip_hours(self) -> float:
        return self.hours * self.chips

    @property
    def network_needed(self) -> float:
        """Bytes a second that each host reads at `rate`."""
        return self.read / self.items * self.rate / self.hosts

    def _sides(self) -> dict[Side, float]:
        return {
            "the chips": self.device,
            "decoding in the processes": self.decode,
            "the hosts' cores": self.decode_cores,
            "the network": math.inf if self.network is None else self.network,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        made = ("rate", "bound", "hours", "hours_all_cores", "chip_hours", "network_needed")
        return dataclasses.asdict(self) | {
            "assumptions": list(self.assumptions),
            **{name: getattr(self, name) for name in made},
        }


def bulk_plan(
    items: int,
    *,
    chips: int,
    host: Host,
    peak: float,
    memory: float = math.inf,
    width: int,
    store_bytes: int = 4,
    shard_size: int = 2048,
    image_bytes: float = BYTES,
    core_rate: float | None = None,
    processes: int = 1,
) -> BulkPlan:
    """A plan of embedding `items` images.

    Args:
      peak, memory: images a second that all chips do if only matmuls, at their peak, or only
        bytes accessed took time.
      width: numbers of an embedding; `store_bytes` of each.
      image_bytes: of an image's file, on average.
      core_rate: images a second that a core decodes; default: as measured.
      processes: of each host.

    Raises:
      ValueError: if a number is not above 0.

    >>> from siglip_jax.plan.hosts import HOSTS
    >>> plan = bulk_plan(10**9, chips=4, host=HOSTS["v5e"], peak=22_000, width=768)
    >>> plan.bound, round(plan.hours), plan.shards
    ('decoding in the processes', 53, 488282)
    """
    given = {
        "items": items,
        "chips": chips,
        "peak": peak,
        "shard_size": shard_size,
        "image_bytes": image_bytes,
        "core_rate": core_rate or DECODING.core,
        "processes": processes,
    }
    for name, number in given.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} must be a number above 0, got {number}")
    hosts = -(-chips // host.chips)
    core = core_rate or DECODING.core
    device = min(peak * EMBEDDING.share, memory)
    shards = -(-items // shard_size)
    # What a process decodes at most was measured for images that took a core 1 / 848 s.
    process = DECODING.process * core / DECODING.core
    return BulkPlan(
        items=items,
        chips=chips,
        hosts=hosts,
        cores=host.cores,
        processes=processes,
        peak=peak,
        device=device,
        decode=hosts * processes * process,
        decode_cores=hosts * host.cores * core,
        network=None if host.network is None else hosts * host.network / image_bytes,
        cores_needed=device / hosts / core,
        read=round(items * image_bytes),
        written=items * (width * store_bytes + _ROW) + shards * _ENTRY,
        shards=shards,
        assumptions=(
            f"chips: {EMBEDDING.share:.0%} of the published peak, as {EMBEDDING.source}; no TPU "
            "has been measured",
            f"decoding: {core:,.0f} images/s a core, {process:,.0f} a process "
            f"({DECODING.source}; large images take longer; more than 16, by --decode-processes, "
            "have not been measured)",
            f"hosts: {host.source}",
            f"images: {image_bytes / 1e3:,.0f} KB each, in tars or tables that are read at the "
            "network's full rate",
            "no start (compiling took 4 to 9 s on an H200), no host that is slow or dies, no "
            "throttling (benchmarks/job_table.py simulates these)",
        ),
    )
