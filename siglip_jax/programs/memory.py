"""What devices say of their memory, or the process where the device is the host."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple


class DeviceMemory(NamedTuple):
    """Bytes of the fullest of some devices; None where nothing is known.

    Attributes:
      limit: that a program can have.
      in_use: now.
      peak: in use at most so far.
    """

    limit: int | None
    in_use: int | None
    peak: int | None

    @property
    def free(self) -> int | None:
        """What is left of the limit."""
        return None if self.limit is None else self.limit - (self.in_use or 0)


def device_memory(devices: Sequence[Any]) -> DeviceMemory:
    """The memory of `devices`.

    A CPU device keeps no account: the peak is this process's resident memory then, and
    there is no limit.
    """
    stats = [device.memory_stats() or {} for device in devices]

    def known(name: str) -> list[int]:
        return [each[name] for each in stats if name in each]

    peak = max(known("peak_bytes_in_use"), default=None)
    if peak is None and devices[0].platform == "cpu":
        peak = _resident_peak()
    return DeviceMemory(
        limit=min(known("bytes_limit"), default=None),
        in_use=max(known("bytes_in_use"), default=None),
        peak=peak,
    )


def _resident_peak() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kilobytes
