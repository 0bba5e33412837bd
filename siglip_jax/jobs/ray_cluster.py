"""A cluster of Ray: connected to, asked what actors may take of it, and why one has died."""

import contextlib
import logging
import os
import re
import socket
from collections.abc import Generator
from typing import Any

from siglip_jax.jobs.engine import RAY
from siglip_jax.messages import optional_package, reason

# What an actor takes, the first of which the cluster has.
_DEVICES: dict[str, dict[str, Any]] = {"TPU": {"resources": {"TPU": 1}}, "GPU": {"num_gpus": 1}}
_ANSWER = 10.0  # seconds
# Of a death that Ray describes with them; what follows is advice for whoever wrote the actor.
_MEMORY = ("low on memory", "memory pressure", "Memory on the node", "OUT_OF_MEMORY")
_ADVICE = re.compile(r"\s*(There are some potential root causes|Some common causes).*", re.DOTALL)


@contextlib.contextmanager
def connected(engine: str) -> Generator[Any, None, None]:
    """The package `ray`, connected while the block runs; where it was before, it stays so.

    Raises:
      ValueError: one line: Ray is not installed, or nobody answers.
    """
    why = "the engine is Ray, which the extra [engines] brings"
    ray = optional_package("ray", name="Ray", why=why)
    if ray.is_initialized():
        yield ray
        return
    address = None if engine == RAY else engine
    where = address or os.environ.get("RAY_ADDRESS", "")
    _check_answers(where)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, OSError) as error:
        said = f"{where or 'Ray'}: cannot be connected to: {reason(error)}"
        raise ValueError(said) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raises a ValueError if nobody listens there; Ray itself would try for long."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # "auto", or "local"
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
    except OSError as error:
        advice = "on a node of the cluster leave the address out, elsewhere it is ray://HEAD:10001"
        if not address.startswith("ray://"):
            advice = "RAY_ADDRESS names it"
        raise ValueError(f"{address}: nobody answers there ({reason(error)}); {advice}") from error


def places(ray: Any) -> tuple[int, dict[str, Any]]:
    """How many actors the cluster has room for, and the options of each.

    One a chip where there are TPUs or GPUs; otherwise one a node, whose cores jax takes all.
    """
    there = ray.cluster_resources()
    for device, options in _DEVICES.items():
        if there.get(device, 0) >= 1:
            return int(there[device]), {"num_cpus": 1, **options}
    nodes = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= 1]
    return max(len(nodes), 1), {"num_cpus": 1, "scheduling_strategy": "SPREAD"}


def cause(error: Exception) -> str:
    """Why an actor is no more, in one line.

    >>> cause(Exception("It died.\\n\\tip: 10.0.0.2\\nIts node was killed. Some common causes ..."))
    'on 10.0.0.2: Its node was killed'
    >>> cause(Exception("OUT_OF_MEMORY\\n\\tip: 10.0.0.2\\n..."))
    'on 10.0.0.2: the node was out of memory'
    """
    text = str(error)
    host = re.search(r"\bip: ?([\w.:]+)", text, re.IGNORECASE)
    where = f"on {host[1]}: " if host else ""
    if any(word in text for word in _MEMORY):
        return f"{where}the node was out of memory"
    # Ray's own first line says that something happened, and fields follow it.
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("\t")]
    said = " ".join(line.strip() for line in lines[1:] or lines)
    return f"{where}{_ADVICE.sub('', said).rstrip('. ')}"
