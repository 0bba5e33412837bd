"""What a task needs of its data: images for a job, and what is right for each of them."""

import dataclasses
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from siglip_jax.data.item import Item, Pairs, Shard, Source, fingerprint, items_of
from siglip_jax.messages import counted

SHARD_SIZE = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes:
    """Images of classes.

    Attributes:
      images: with keys.
      right: by key, the indices of the classes of an image; several where any of them is right,
        or all are to be found; none where none is.
      names: of the classes, in order.
      templates: with `{}`; None where the data have none.
      groups: by key, in which group an image is; None where there are none.
      canonical: names may be canonicalised as big_vision does.
    """

    images: Source
    right: Mapping[str, tuple[int, ...]]
    names: Sequence[str]
    templates: Sequence[str] | None = None
    groups: Mapping[str, int] | None = None
    canonical: bool = True

    def check(self, where: str, expected: int | None) -> None:
        """Refuses what does not fit together.

        Raises:
          ValueError: one line: there is no image, as many names as there should be are not
            there, one is empty, an index is beyond them, or a class has no image.
        """
        count = len(self.names)
        if not self.right:
            raise ValueError(f"{where}: there is no image")
        for number, name in enumerate(self.names):
            if not name.strip():
                raise ValueError(f"{where}: class {number} of {count:,} has an empty name")
        if expected is not None and count != expected:
            raise ValueError(
                f"{where}: {counted(count, 'class name')}, but this task has {expected:,} classes"
            )
        used = {index for indices in self.right.values() for index in indices}
        beyond = [(key, i) for key, own in self.right.items() for i in own if not 0 <= i < count]
        if beyond:
            key, index = beyond[0]
            raise ValueError(
                f"{where}: {key} is of class {index}, but there are "
                f"{counted(count, 'class name')} (0 to {count - 1}); "
                f"{counted(len({i for _, i in beyond}), 'such class', 'such classes')} in all"
            )
        empty = [index for index in range(count) if index not in used]
        if empty:
            first = f"{empty[0]} ({self.names[empty[0]]!r})"
            raise ValueError(
                f"{where}: {counted(len(empty), 'class has', 'classes have')} no image, the first "
                f"is class {first}; add images or leave the name out"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captions:
    """Images with captions.

    Attributes:
      images: with keys.
      captions: by language, by key; a language may lack some images, which it is measured
        without.
    """

    images: Source
    captions: Mapping[str, Mapping[str, tuple[str, ...]]]


def _shards(what: str, count: int, size: int) -> list[Shard]:
    return [
        Shard(f"{what} {start + 1:,} to {min(start + size, count):,}", min(size, count - start))
        for start in range(0, count, size)
    ]


class PairImages(Source):
    """The images of pairs, some to a shard, for a job that goes on where it was killed."""

    def __init__(self, pairs: Pairs, size: int = SHARD_SIZE) -> None:
        self._pairs, self._size = pairs, size

    def shards(self) -> list[Shard]:
        return _shards("images", len(self._pairs), self._size)

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        start = shard * self._size
        count = min(self._size, len(self._pairs) - start)
        for item in itertools.islice(items_of(self._pairs, start), count):
            if keys is None or item.key in keys:
                yield item

    def identity(self) -> str:
        return fingerprint("pair images", self._pairs.identity(), self._size)


class Items(Source):
    """Items that are known already: texts, or images as paths or bytes."""

    def __init__(self, items: Sequence[Item], identity: str, size: int = SHARD_SIZE) -> None:
        self._items, self._identity, self._size = items, identity, size

    def shards(self) -> list[Shard]:
        return _shards("items", len(self._items), self._size)

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        for item in self._items[shard * self._size : (shard + 1) * self._size]:
            if keys is None or item.key in keys:
                yield item

    def identity(self) -> str:
        return self._identity


def texts_source(texts: Sequence[str]) -> Items:
    """Texts, each with its index as the key.

    >>> source = texts_source(["a dog", "a cat"])
    >>> [item.text for item in source.read(0)]
    ['a dog', 'a cat']
    """
    items = [Item(str(number), text=text) for number, text in enumerate(texts)]
    return Items(items, fingerprint("texts", list(texts)), 4096)


def class_indices(value: Any, where: str) -> tuple[int, ...]:
    """The classes that the data say of an image: an index, several, or a vector of 0 and 1.

    >>> class_indices(b"7\\n", "a"), class_indices("[3, 5]", "a"), class_indices(4, "a")
    ((7,), (3, 5), (4,))

    Raises:
      ValueError: if it is none of these.
    """
    if value is None:
        raise ValueError(f"{where}: it is of no class: there is no .cls beside it")
    if isinstance(value, bytes) and value[:6] == b"\x93NUMPY":
        return tuple(i for i, one in enumerate(array_of(value, where).reshape(-1)) if one)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        try:
            value = json.loads(value.strip() or "[]")
        except ValueError:
            value = value.replace(",", " ").split()
    value = value.tolist() if hasattr(value, "tolist") else value
    values: Any = value if isinstance(value, list | tuple) else [value]
    try:
        return tuple(int(one) for one in values)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: expected the index of a class, got {value!r}") from None


def array_of(content: bytes, where: str) -> Any:
    """The array in a .npy, which holds no objects.

    Raises:
      ValueError: if it is no such file.
    """
    import io

    import numpy as np

    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{where}: not an array: {error}") from error
