"""What the machine says of its accelerator without jax."""

import subprocess
from typing import Any


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
