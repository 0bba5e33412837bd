"""What a dataset gives: items in shards, for jobs; pairs by index, for training and evaluation.

A format's class offers both where the format can, over one reading of its files.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable


class _Fields(NamedTuple):
    key: str
    image: bytes | str | None = None
    text: str | None = None
    error: str | None = None


class Item(_Fields):
    """An image, a text, or an image with its text: a tuple of `key`, `image`, `text`, `error`.

    Attributes:
      key: names the item in what a job writes; the same in every run, unique in a source.
      image: the bytes of an image file, or the path of a local one; None for a text.
      text: None for an image alone.
      error: why the item could not be read; image and text are None then.
      stamp: of a remote image, what its bucket tells contents apart by; empty for nothing.
      passing: the error may pass (`failures.PassingError`).
      kept: what the source has beside it in columns that a job carries along: a value that
        pyarrow takes, or an array of one; None for nothing. See `Keeping`.

    >>> item = Item("a.jpg", error="the server does not answer", passing=True)
    >>> item, item._replace(key="b.jpg").passing
    (Item(key='a.jpg', image=None, text=None, error='the server does not answer'), True)
    """

    stamp: str | None
    passing: bool
    kept: dict[str, Any] | None

    def __new__(
        cls,
        key: str,
        image: bytes | str | None = None,
        text: str | None = None,
        error: str | None = None,
        *,
        stamp: str | None = None,
        passing: bool = False,
        kept: dict[str, Any] | None = None,
    ) -> Self:
        self = super().__new__(cls, key, image, text, error)
        self.stamp, self.passing, self.kept = stamp, passing, kept
        return self

    def _replace(self, **changes: Any) -> Self:
        return type(self)(**(self._asdict() | self.__dict__ | changes))


class Shard(NamedTuple):
    """Items that are done whole or not at all.

    Attributes:
      name: for messages, such as the name of a tar.
      items: how many there are in it, None where only reading it tells.
    """

    name: str
    items: int | None = None


class Pair(NamedTuple):
    """An image and its captions.

    Attributes:
      key: as of an item.
      image: the bytes of an image file.
      captions: at least one.
    """

    key: str
    image: bytes
    captions: tuple[str, ...]


@runtime_checkable
class Source(Protocol):
    """Items in a fixed order, in shards that are the same in every run.

    Sources can be pickled, and several threads may read different shards at once.
    """

    def shards(self) -> Sequence[Shard]:
        """All shards, in order."""
        ...

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        """The items of one shard, in order, without holding them all; those of `keys` if given.

        An item that cannot be read is given with its error; what follows it is read on
        where that is possible.

        Raises:
          ValueError: if the shard cannot be opened at all, or a bucket that could be
            reached no longer can: reading it again may succeed.
        """
        ...

    def identity(self) -> str:
        """A short digest of what the data are, so that a resumed job notices others."""
        ...


@runtime_checkable
class Stamped(Source, Protocol):
    """A source that knows its items apart, so that an index of it can be brought up to date."""

    def stamp(self, shard: int) -> str | None:
        """Of a shard that is one file; None where its items have stamps of their own."""
        ...

    def stamps(self, shard: int) -> Iterator[tuple[str, str | None]]:
        """Key and stamp of the items of a shard that has none; see `stamps.item_stamp`.

        Raises:
          ValueError: if what changed cannot be known.
        """
        ...

    def contents(self) -> str:
        """A digest that changes if a file is replaced. It changes, too, if one is copied."""
        ...


@runtime_checkable
class Keeping(Source, Protocol):
    """A source whose items carry columns along, see `Item.kept`."""

    def kept(self) -> dict[str, Any]:
        """Names of these columns and their types in pyarrow, the same in every run.

        Raises:
          ValueError: if a column is of several types.
        """
        ...


@runtime_checkable
class Valued(Source, Protocol):
    """A source whose items have more than images and texts, such as the index of a class."""

    def values(self, name: str) -> Iterator[tuple[str, Any]]:
        """Of every item its key, as `read` gives it, and what the data call `name`.

        Raises:
          ValueError: if it cannot be read.
        """
        ...


@runtime_checkable
class Pairs(Protocol):
    """A dataset of pairs with random access.

    It can be pickled, so that worker processes open their own, and read by several
    threads at once.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair:
        """The pair at `index`, from 0.

        Raises:
          ValueError: if its image or its captions cannot be read.
        """
        ...

    def key(self, index: int) -> str:
        """The key at `index`, without reading the image."""
        ...

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions at `index`, without reading the image.

        Raises:
          ValueError: if they cannot be read.
        """
        ...

    def identity(self) -> str:
        """A short digest of what the data are, so that a resumed run notices others."""
        ...


class Dataset(Stamped, Keeping, Pairs, Protocol):
    """What the class of a format is.

    Attributes:
      origin: what `open_items` was given, so that the images can be found again.
    """

    origin: dict[str, Any] | None = None


class Unique:
    """Gives a name that was there before a number: `a.jpg`, `a.jpg#2`, `a.jpg#3`.

    >>> unique = Unique()
    >>> [unique(name) for name in ("a", "b", "a", "a")]
    ['a', 'b', 'a#2', 'a#3']
    """

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        number = self._seen[name] = self._seen.get(name, 0) + 1
        # The numbered name may be another item's own name as well.
        return name if number == 1 else self(f"{name}#{number}")


def captions_of(pairs: Pairs) -> list[tuple[str, ...]]:
    """The captions of all pairs, in order, without reading an image.

    Raises:
      ValueError: if some cannot be read.
    """
    return [pairs.captions(index) for index in range(len(pairs))]


def items_of(pairs: Pairs, first: int = 0) -> Iterator[Item]:
    """The images of a dataset in order, from index `first` on, or why one cannot be read.

    >>> class Two:
    ...     def __len__(self):
    ...         return 2
    ...     def key(self, index):
    ...         return "ab"[index]
    ...     def __getitem__(self, index):
    ...         if index:
    ...             raise ValueError("b: cannot be read: no such file")
    ...         return Pair("a", b"...", ("a dog",))
    >>> [(item.key, item.error) for item in items_of(Two())]
    [('a', None), ('b', 'b: cannot be read: no such file')]
    """
    for index in range(first, len(pairs)):
        try:
            key, image, _ = pairs[index]
        except ValueError as error:
            yield Item(pairs.key(index), error=str(error))
        else:
            yield Item(key, image)


def several_texts(
    key: str, texts: Sequence[str], kept: dict[str, Any] | None = None
) -> Iterator[Item]:
    """An item a text; those after the first have a number in their key."""
    for number, text in enumerate(texts):
        yield Item(f"{key}/{number + 1}" if number else key, text=text, kept=kept)


def fingerprint(*parts: Any) -> str:
    """A short digest of plain JSON values, of which identities are made.

    >>> fingerprint("parquet", [["a.parquet", 120]], 3)
    '38e646ff6bc6c0be'
    """
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
