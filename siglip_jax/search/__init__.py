"""Search in what embed jobs have written: `open_embeddings`, then `search`."""

from siglip_jax.search.combination import combined
from siglip_jax.search.embeddings import Embeddings, Row, open_embeddings
from siglip_jax.search.locations import Location, location
from siglip_jax.search.near_groups import duplicates
from siglip_jax.search.nearest import Hit, Searcher, search

__all__ = [
    "Embeddings",
    "Hit",
    "Location",
    "Row",
    "Searcher",
    "combined",
    "duplicates",
    "location",
    "open_embeddings",
    "search",
]
