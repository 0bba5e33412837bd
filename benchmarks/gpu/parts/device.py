"""The device of this process, and what the results say of it."""

import os
from typing import Any

import jax
from results import Results


def describe(results: Results) -> Any:
    """The first device; writes what it is, once a part."""
    device = jax.devices()[0]
    if not results.scale.rehearsal and device.platform != results.platform:
        raise RuntimeError(f"jax has a {device.platform} here, not a {results.platform}")
    stats = device.memory_stats() or {}
    results.measured(
        "device",
        device=device.device_kind,
        platform=device.platform,
        devices=len(jax.devices()),
        memory=stats.get("bytes_limit"),
        cores=os.cpu_count(),
        jax=jax.__version__,
    )
    return device
