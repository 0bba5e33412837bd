"""Images and texts, from files here or in buckets: to jobs, to evaluation, to training batches.

`open_items` opens a dataset of any supported format to be read from front to back, `open_pairs`
with random access; `Batches` makes an endless, resumable stream of training batches of pairs.
Nothing here imports jax; fsspec, grain, pyarrow and tensorflow_datasets are imported when used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siglip_jax.data.augmentation import Augmentation
    from siglip_jax.data.batches import Batches
    from siglip_jax.data.error_share import ErrorShare
    from siglip_jax.data.examples import Batch
    from siglip_jax.data.failures import SettingError
    from siglip_jax.data.item import (
        Item,
        Keeping,
        Pair,
        Pairs,
        Shard,
        Source,
        captions_of,
        items_of,
    )
    from siglip_jax.data.open import open_items, open_pairs
    from siglip_jax.data.tables import TextStrings

# Looked up on first use: what is asked for file names needs neither numpy nor Pillow.
_LAZY = {
    "Augmentation": "augmentation",
    "Batch": "examples",
    "Batches": "batches",
    "ErrorShare": "error_share",
    "Item": "item",
    "Keeping": "item",
    "Pair": "item",
    "Pairs": "item",
    "SettingError": "failures",
    "Shard": "item",
    "Source": "item",
    "TextStrings": "tables",
    "captions_of": "item",
    "items_of": "item",
    "open_items": "open",
    "open_pairs": "open",
}

__all__ = [
    "Augmentation",
    "Batch",
    "Batches",
    "ErrorShare",
    "Item",
    "Keeping",
    "Pair",
    "Pairs",
    "SettingError",
    "Shard",
    "Source",
    "TextStrings",
    "captions_of",
    "items_of",
    "open_items",
    "open_pairs",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"siglip_jax.data.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'siglip_jax.data' has no attribute {name!r}")
