"""Small inputs of jobs: a source that is told what its items are, and pictures for it."""

import hashlib
import io
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
from paths import SUPPORT
from PIL import Image

from siglip_jax.data.item import Item, Shard


class Told:
    """Items as told, so many a shard. Items may be errors to be raised when they are read."""

    def __init__(self, items, size=4, name="told"):
        self.items, self.size, self.name = list(items), size, name

    def shards(self):
        n = len(self.items)
        return [
            Shard(f"{self.name} {i}", min(self.size, n - i * self.size))
            for i in range(-(-n // self.size))
        ]

    def read(self, shard):
        for item in self.items[shard * self.size : (shard + 1) * self.size]:
            if isinstance(item, Exception):
                raise item
            yield item

    def identity(self):
        parts = [repr(item) for item in self.items] + [str(self.size)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def picture(seed, width=20, height=16):
    """The bytes of a small PNG."""
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def pictures(n, size=4):
    """A source of n pictures, no two alike, the i-th 20+i pixels wide."""
    return Told([Item(f"{i:04d}.png", picture(i, 20 + i % 7)) for i in range(n)], size)


def table(folder):
    """All rows of a job's Parquet files, in order."""
    files = sorted((folder / "data").glob("*.parquet"))
    return pq.ParquetDataset([str(file) for file in files]).read() if files else None


def contents(folder):
    """The bytes of all that a job computed: everything but how fast it went."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("summary.json", ".lock")
    }


def started(module, *argv, **options):
    """A script of this folder, or a module, in a process of its own."""
    what = [SUPPORT / module] if module.endswith(".py") else ["-m", module]
    return subprocess.Popen(
        [sys.executable, *what, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def items(source):
    """All items of all shards of a source."""
    return [item for shard in range(len(source.shards())) for item in source.read(shard)]
