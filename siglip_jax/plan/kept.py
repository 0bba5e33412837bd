"""What a compiler said of a program, kept in a file: for a slice it takes minutes to ask again.

An executable for devices that are not there cannot be loaded, and so jax's cache of them is of
no use to a plan. What a plan needs of it is a few numbers and its text's collectives.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

from siglip_jax.plan.topology import Slice
from siglip_jax.programs.compile_times import facts_folder
from siglip_jax.weights.staging import staged


def plan_key(lowered: Any, target: Slice) -> str:
    """The name of the file for a lowered program on a slice, of all that the compiler is told."""
    packages = ("jax", "jaxlib", "libtpu", "siglip-jax")
    versions = []
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append((package, importlib.metadata.version(package)))
    sources = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):  # which read what the compiler says
        sources.update(file.read_bytes())
    devices = [(d.device_kind, list(getattr(d, "coords", ()))) for d in target.devices]
    flags = {n: os.environ[n] for n in sorted(os.environ) if n.startswith(("XLA_", "LIBTPU_"))}
    facts = [
        lowered.as_text(),
        target.name,
        repr(target.chip),
        devices,
        versions,
        flags,
        sources.hexdigest(),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def read_kept(key: str) -> dict[str, Any] | None:
    """What was kept under `key`; None if there is nothing, or it is damaged."""
    file = _file(key)
    try:
        there = json.loads(file.read_text("utf-8")) if file is not None else {}
        kept = there["kept"]
        return kept if there["sha256"] == _digest(kept) and isinstance(kept, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(key: str, said: dict[str, Any]) -> None:
    """Keeps plain JSON types under `key`, where there is a folder for them."""
    file = _file(key)
    if file is None:
        return
    with contextlib.suppress(OSError, ValueError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with staged(file) as partial:
            partial.write_text(json.dumps({"sha256": _digest(said), "kept": said}), "utf-8")


def _digest(said: Any) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _file(key: str) -> Path | None:
    folder = facts_folder()
    return None if folder is None else folder / "plans" / f"{key}.json"
