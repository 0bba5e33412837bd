"""Pairs of pictures and captions, from files to training batches.

`open_pairs` opens a dataset of any supported format, `Batches` makes an endless,
resumable stream of batches of it, `items_of` goes through its images once.
Nothing here imports jax; grain, pyarrow and tensorflow_datasets are imported when used.
"""

from siglip_jax.data.augmentation import Augmentation
from siglip_jax.data.batches import Batches
from siglip_jax.data.examples import Batch
from siglip_jax.data.in_order import items_of
from siglip_jax.data.pair import Pair, Pairs, captions_of
from siglip_jax.data.pairs import open_pairs

__all__ = [
    "Augmentation",
    "Batch",
    "Batches",
    "Pair",
    "Pairs",
    "captions_of",
    "items_of",
    "open_pairs",
]
