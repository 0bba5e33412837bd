"""Images that are files of their own, with captions in files beside them."""

import functools
import itertools
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from siglip_jax.data.columns import Wanted, captions_beside, text_endings
from siglip_jax.data.failures import PassingError
from siglip_jax.data.fetch import AHEAD, fetched
from siglip_jax.data.item import Dataset, Item, Pair, Shard, Unique, fingerprint
from siglip_jax.data.stamps import contents_of, item_stamps, remote_stamp
from siglip_jax.data.storage import Stored, is_remote, local, read_bytes, read_if_there, size


class ImageFiles(Dataset):
    """An image a file, in the order given, `shard_size` to a shard.

    Beside `a.jpg` there may be `a.txt`, with one caption a line, or `a.json`, with `caption`,
    `captions` or `text`. They are looked for where texts are wanted.

    Args:
      files: names, which become the keys, and where they lie; all held in memory.
      wanted: `text` is a key in the .json.
      shard_size: the most files of a shard.
    """

    def __init__(self, files: Sequence[Stored], wanted: Wanted, shard_size: int) -> None:
        unique = Unique()
        self._keys = [unique(file.name) for file in files]
        self._files, self._wanted, self._size = list(files), wanted, shard_size

    def shards(self) -> list[Shard]:
        total, size = len(self._files), self._size
        return [
            Shard(f"images {start + 1:,} to {min(start + size, total):,}", min(size, total - start))
            for start in range(0, total, size)
        ]

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        part = slice(shard * self._size, (shard + 1) * self._size)
        named = zip(self._keys[part], self._files[part], strict=True)
        items = (_item(k, f) for k, f in named if keys is None or k in keys)
        return fetched(items, self._with_text) if text_endings(self._wanted) else fetched(items)

    def stamp(self, shard: int) -> None:
        """Files have their own."""

    def stamps(self, shard: int) -> Iterator[tuple[str, str | None]]:
        part = slice(shard * self._size, (shard + 1) * self._size)
        items = itertools.starmap(_item, zip(self._keys[part], self._files[part], strict=True))
        return item_stamps(map(self._with_text, items) if text_endings(self._wanted) else items)

    def kept(self) -> dict[str, Any]:
        """Files have no columns."""
        return {}

    def contents(self) -> str:
        return contents_of([file.where for file in self._files])

    def identity(self) -> str:
        contents = [(key, f.size, f.stamp) for key, f in zip(self._keys, self._files, strict=True)]
        # The word is part of what lies in the manifests of jobs.
        return fingerprint("pictures", contents, self._size, *self._captioned())

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Pair:
        return Pair(self._keys[index], read_bytes(self._files[index].where), self.captions(index))

    def key(self, index: int) -> str:
        return self._keys[index]

    def captions(self, index: int) -> tuple[str, ...]:
        return self._captions[index]

    @functools.cached_property
    def _captions(self) -> list[tuple[str, ...]]:
        """Of every image; read once."""
        if not any(is_remote(file.where) for file in self._files):
            return [self._beside(*named) for named in zip(self._keys, self._files, strict=True)]
        with ThreadPoolExecutor(AHEAD) as pool:
            return list(pool.map(self._beside, self._keys, self._files))

    def _captioned(self) -> list[int]:
        """What an identity says of the captions: nothing where there are none."""
        if self._wanted.only == "pairs":
            return [sum(len(text) for texts in self._captions for text in texts)]
        beside = [
            size(local(f"{_stem(file.where)}.{ending}")) or 0
            for ending in text_endings(self._wanted)
            for file in self._files
            if not is_remote(file.where)
        ]
        return beside if any(beside) else []

    def _beside(self, key: str, file: Stored) -> tuple[str, ...]:
        try:
            return self._read_texts(file.where)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error

    def _with_text(self, item: Item) -> Item:
        try:
            texts = self._read_texts(str(item.image))
        except ValueError as error:
            passing = isinstance(error, PassingError)
            said = f"{item.key}: {error}"
            return Item(item.key, error=said, stamp=item.stamp, passing=passing)
        return item._replace(text=texts[0]) if texts else item

    def _read_texts(self, where: str) -> tuple[str, ...]:
        for ending in text_endings(self._wanted):
            content = read_if_there(f"{_stem(where)}.{ending}")
            if content is not None:
                return captions_beside({ending: content}, self._wanted.text)
        return ()


def _item(key: str, file: Stored) -> Item:
    return Item(key, file.where, stamp=remote_stamp(file) if is_remote(file.where) else None)


def _stem(where: str) -> str:
    """A path or URL without the ending.

    >>> _stem("a.b/c.jpg"), _stem("a.b/c")
    ('a.b/c', 'a.b/c')
    """
    folder, slash, name = where.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)
