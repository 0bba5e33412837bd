"""What devices say of their memory, or the process where the device is the host."""

import sys
from collections.abc import Sequence
from typing import Any


def memory_of(devices: Sequence[Any]) -> tuple[int | None, int | None]:
    """Peak bytes in use so far and bytes in all, of the fullest of `devices`.

    A CPU device keeps no account: the peak is this process's resident memory then, and
    there is no total. None where nothing is known.
    """
    stats = [device.memory_stats() or {} for device in devices]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    limits = [s["bytes_limit"] for s in stats if "bytes_limit" in s]
    if not peaks and devices[0].platform == "cpu":
        return _resident_peak(), None
    return max(peaks, default=None), min(limits, default=None)


def _resident_peak() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kilobytes
