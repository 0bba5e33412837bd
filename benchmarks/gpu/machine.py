"""What the machine says of its accelerator without jax."""

import functools
import importlib.util
import subprocess
from typing import Any


def missing(platform: str) -> str | None:
    """What there has to be on this machine for a run, and is not."""
    if platform == "tpu":
        if importlib.util.find_spec("libtpu") is None:
            return 'libtpu is not installed: pip install "jax[tpu]"'
        return None
    if not card():
        return "nvidia-smi finds no card"
    plugins = ("jax_cuda13_plugin", "jax_cuda12_plugin")
    if not any(importlib.util.find_spec(name) for name in plugins):
        return 'jax is here without CUDA: pip install "jax[cuda13]"'
    return None


@functools.cache
def card() -> dict[str, Any]:
    """Name, driver and memory of the first NVIDIA card; nothing where there is none."""
    asked = ("name", "driver_version", "memory.total")
    command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
    return {"device": values[0], "driver": values[1], "card_memory": values[2]}
