"""Where the items of a bulk job come from."""

from siglip_jax.data.item import Item, Shard, Source
from siglip_jax.jobs.sources.opening import open_source
from siglip_jax.jobs.sources.tables import TextStrings

__all__ = ["Item", "Shard", "Source", "TextStrings", "open_source"]
