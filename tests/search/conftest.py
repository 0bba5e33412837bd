"""Finished jobs over a few pictures, and what is in them."""

import numpy as np
import pytest
from job_inputs import picture
from saved_model import saved
from shapes import compiled_once

import siglip_jax
from siglip_jax.data import Item, Shard
from siglip_jax.jobs import embed

__all__ = ["compiled_once"]  # a fixture


class Some:
    """Three shards of pictures, of which two cannot be read."""

    def __init__(self):
        self.items = [Item(f"{n}.png", picture(n)) for n in range(11)]
        self.items[3] = Item("3.png", error="3.png: gone")
        self.items[8] = Item("8.png", b"no picture")
        self.items[10] = self.items[0]._replace(key="10.png")  # as near as the first

    def shards(self):
        return [Shard(str(n), len(self.items[4 * n : 4 * n + 4])) for n in range(3)]

    def read(self, shard):
        return iter(self.items[4 * shard : 4 * shard + 4])

    def identity(self):
        return "some"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture(scope="module")
def jobs(model, tmp_path_factory):
    """Folders of finished jobs, by format and type."""
    folder = tmp_path_factory.mktemp("jobs")
    for form in ("parquet", "npy"):
        for store in ("float32", "float16"):
            out = folder / f"{form}-{store}"
            embed(Some(), out, model=model, format=form, store=store, max_error_share=1.0)
    return folder


@pytest.fixture(scope="module")
def expected(model):
    """Rows of `Some`, NaN where there is an error."""
    found = np.full((11, 24), np.nan, np.float32)
    good = [n for n in range(11) if n not in (3, 8)]
    items = Some().items
    found[good] = model.scorer(tokenizer=False).embed_images([items[n].image for n in good])
    return found
