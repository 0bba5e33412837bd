"""Pairs of pictures and captions, from files to training batches.

`open_pairs` opens a dataset of any supported format, `Batches` makes an endless,
resumable stream of batches of it, `images_in_order` goes through its pictures once.
Nothing here imports jax; grain, pyarrow and tensorflow_datasets are imported when used.
"""

from siglip_jax.data.augmentation import Augmentation
from siglip_jax.data.batches import Batches
from siglip_jax.data.examples import Batch
from siglip_jax.data.in_order import ImageBatch, images_in_order
from siglip_jax.data.pair import Pair, Pairs, captions_of
from siglip_jax.data.pairs import open_pairs

__all__ = [
    "Augmentation",
    "Batch",
    "Batches",
    "ImageBatch",
    "Pair",
    "Pairs",
    "captions_of",
    "images_in_order",
    "open_pairs",
]
