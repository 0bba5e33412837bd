"""SigLIP and SigLIP 2 in JAX, numerically faithful to big_vision.

>>> from siglip_jax import find
>>> find("ViT-B-16-SigLIP").params
203155970
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from siglip_jax.checkpoints import CHECKPOINTS, Checkpoint, find
from siglip_jax.config import Execution

if TYPE_CHECKING:
    __version__: str
    from siglip_jax.calibration import Calibration
    from siglip_jax.converters import OpenCheckpoint
    from siglip_jax.model_files import open_model
    from siglip_jax.models import SiglipModel
    from siglip_jax.preprocessing import Patches
    from siglip_jax.pretrained import Pretrained, load, save
    from siglip_jax.programs import FSDP, make_mesh
    from siglip_jax.scoring import Scorer, Scores

# Looked up on first use, because each imports jax and the command line's tables need none.
_LAZY = {
    "Calibration": "calibration",
    "FSDP": "programs",
    "OpenCheckpoint": "converters",
    "Patches": "preprocessing",
    "Pretrained": "pretrained",
    "Scorer": "scoring",
    "Scores": "scoring",
    "SiglipModel": "models",
    "load": "pretrained",
    "make_mesh": "programs",
    "open_model": "model_files",
    "save": "pretrained",
}

__all__ = [
    "CHECKPOINTS",
    "FSDP",
    "Calibration",
    "Checkpoint",
    "Execution",
    "OpenCheckpoint",
    "Patches",
    "Pretrained",
    "Scorer",
    "Scores",
    "SiglipModel",
    "__version__",
    "find",
    "load",
    "make_mesh",
    "open_model",
    "save",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("siglip-jax")
    if name in _LAZY:
        return getattr(importlib.import_module(f"siglip_jax.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'siglip_jax' has no attribute {name!r}")
