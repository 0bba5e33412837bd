"""How a job is run, whatever it computes."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from siglip_jax.data.failures import SettingError
from siglip_jax.jobs.claims import PATIENCE
from siglip_jax.jobs.progress import JobProgress


def unreported(progress: JobProgress) -> None:
    """Tells nobody. A function of a module, which can be pickled."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to run a job: none of it changes what is computed.

    Attributes:
      batch_size: items a step, over the local devices; 32 on a CPU and 256 on each other
        device, or fewer where there are few items.
      max_error_share: of items that may be unreadable before the job stops.
      shared: other processes work on the same folder; so they do under `jax.distributed`. On a
        disk that all see: in a bucket they have parts.
      part: do this part of the shards only, such as "2/8"; other processes do the others, with
        no word between them. So it is in a bucket under `jax.distributed`.
      patience: seconds until another process that shows no life is replaced.
      threads: that decode; default: as many as there are cores.
      decode_processes: that read and decode images in the place of threads, which share Python's
        lock; 0 for threads. Default: one a core, up to 16, where there are 8 cores or more, the
        model runs on another device than the CPU and there are 2,048 images or more; 0
        elsewhere, where `threads` are given, and in each actor of an engine.
      memory: bytes of files and images being decoded to hold, whatever their sizes.
      label_memory: bytes of label embeddings that each device may keep.
      retry: do the shards again in which something failed for a reason that may pass (a server
        or a disk that did not answer: `siglip_jax.data.failures`); "all" for whatever failed.
        A job that is not finished does the former anyway.
      update: the source may have changed: what went is taken out of the folder, what is new or
        other is embedded. Not with `shared`.
      engine: "ray" for actors of the Ray cluster that this process finds (`RAY_ADDRESS`, one on
        this machine, or else a new one), "ray://HOST:PORT" for those of another; None for this
        process. The model must be a name or a path then, and all files be seen by all nodes.
      program: a saved one to start from (`siglip_jax.programs.load_program`), with its batches.
      report: called with a `JobProgress` a few times a second.
    """

    batch_size: int | None = None
    max_error_share: float = 0.01
    shared: bool = False
    part: str | tuple[int, int] | None = None
    patience: float = PATIENCE
    threads: int | None = None
    decode_processes: int | None = None
    memory: int = 2**30
    label_memory: int | None = None
    retry: bool | Literal["all"] = False
    update: bool = False
    engine: str | None = None
    program: Any = None
    report: Callable[[JobProgress], None] = unreported

    def __post_init__(self) -> None:
        count = self.decode_processes
        if count is not None and (type(count) is not int or count < 0):
            raise SettingError(
                f"expected a whole number of processes, 0 for threads, got {count!r}",
                "decode_processes",
                "change {}",
            )
