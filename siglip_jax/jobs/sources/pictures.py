"""Pictures that are files of their own."""

from collections.abc import Collection, Iterator, Sequence

from siglip_jax.data.item import Item, Shard
from siglip_jax.data.pair import digest
from siglip_jax.jobs.sources.fetch import fetched
from siglip_jax.jobs.sources.named import Unique
from siglip_jax.jobs.sources.storage import Stored


class PictureFiles:
    """A picture a file, in the order given, `shard_size` to a shard.

    Args:
      files: names, which become the keys, and where they lie; all held in memory.
      shard_size: how many are a piece of work.
    """

    def __init__(self, files: Sequence[Stored], shard_size: int) -> None:
        unique = Unique()
        self._keys = [unique(file.name) for file in files]
        self._files, self._size = list(files), shard_size

    def shards(self) -> list[Shard]:
        total, size = len(self._files), self._size
        return [
            Shard(
                f"pictures {start + 1:,} to {min(start + size, total):,}", min(size, total - start)
            )
            for start in range(0, total, size)
        ]

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        part = slice(shard * self._size, (shard + 1) * self._size)
        named = zip(self._keys[part], self._files[part], strict=True)
        return fetched(Item(k, image=f.where) for k, f in named if keys is None or k in keys)

    def identity(self) -> str:
        contents = [(key, f.size, f.stamp) for key, f in zip(self._keys, self._files, strict=True)]
        return digest("pictures", contents, self._size)
