"""The compiled functions of a model's towers: sharding, cached executables, exported programs."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siglip_jax.programs.exported import SavedProgram, load_program, save_program
    from siglip_jax.programs.sharding import FSDP, REPLICATED, make_mesh, sharding_of
    from siglip_jax.programs.towers import Program

# Looked up on first use: `programs.cache` must be importable without jax, to read executables
# from files while jax is still being imported.
_LAZY = {
    "FSDP": "sharding",
    "REPLICATED": "sharding",
    "Program": "towers",
    "SavedProgram": "exported",
    "load_program": "exported",
    "make_mesh": "sharding",
    "save_program": "exported",
    "sharding_of": "sharding",
}

__all__ = [
    "FSDP",
    "REPLICATED",
    "Program",
    "SavedProgram",
    "load_program",
    "make_mesh",
    "save_program",
    "sharding_of",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"siglip_jax.programs.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'siglip_jax.programs' has no attribute {name!r}")
