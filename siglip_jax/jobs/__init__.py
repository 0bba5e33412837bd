"""Bulk embedding and scoring that survives being killed.

`embed(source, folder, model=...)` and `score(source, folder, model=..., labels=[...])`; what
they leave in the folder is described in `siglip_jax.jobs.manifest`. `open_features` reads
patches back, `siglip_jax.search.open_embeddings` embeddings.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siglip_jax.jobs.durable import DiskFull
    from siglip_jax.jobs.features import Features, open_features
    from siglip_jax.jobs.manifest import Manifest, read_manifest
    from siglip_jax.jobs.progress import JobProgress
    from siglip_jax.jobs.result import JobResult
    from siglip_jax.jobs.run import embed, score

# Looked up on first use: `run` imports jax, and `siglip_jax.data` needs none.
_LAZY = {
    "DiskFull": "durable",
    "Features": "features",
    "Manifest": "manifest",
    "JobProgress": "progress",
    "JobResult": "result",
    "embed": "run",
    "open_features": "features",
    "read_manifest": "manifest",
    "score": "run",
}

__all__ = [
    "DiskFull",
    "Features",
    "JobProgress",
    "JobResult",
    "Manifest",
    "embed",
    "open_features",
    "read_manifest",
    "score",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"siglip_jax.jobs.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'siglip_jax.jobs' has no attribute {name!r}")
