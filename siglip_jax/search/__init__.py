"""Search in what embed jobs have written: `open_embeddings`, then `search`."""

from siglip_jax.search.embeddings import Embeddings, Row, open_embeddings
from siglip_jax.search.nearest import Hit, Searcher, search

__all__ = ["Embeddings", "Hit", "Row", "Searcher", "open_embeddings", "search"]
