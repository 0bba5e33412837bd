"""What a source of a bulk job gives: items, in shards of work."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class Item(NamedTuple):
    """A picture, a text, or a picture with its text.

    Attributes:
      key: names the item in what the job writes; the same in every run, unique in a source.
      image: the bytes of an image file, or the path of a local one; None for a text.
      text: None for a picture alone.
      error: why the item could not be read; image and text are None then.
    """

    key: str
    image: bytes | str | None = None
    text: str | None = None
    error: str | None = None


class Shard(NamedTuple):
    """A piece of work that is done whole or not at all.

    Attributes:
      name: for messages, such as the name of a tar.
      items: how many there are in it, None where only reading it tells.
    """

    name: str
    items: int | None = None


@runtime_checkable
class Source(Protocol):
    """Items in a fixed order, in shards that are the same in every run.

    Sources can be pickled, and several threads may read different shards at once.
    """

    def shards(self) -> Sequence[Shard]:
        """All shards, in order."""

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        """The items of one shard, in order, without holding them all; those of `keys` if given.

        An item that cannot be read is given with its error; what follows it is read on
        where that is possible.

        Raises:
          ValueError: if the shard cannot be opened at all, or a bucket that could be
            reached no longer can: reading it again may succeed.
        """

    def identity(self) -> str:
        """A short digest of what the data are, so that a resumed job notices others."""
