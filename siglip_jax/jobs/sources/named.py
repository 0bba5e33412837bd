"""Names that stay unique, and columns that are chosen once for all files."""

from collections.abc import Iterable, Iterator, Sequence

from siglip_jax.data.item import Item
from siglip_jax.data.pair import choose_column

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "file_name", "path", "url")
TEXT_COLUMNS = ("caption", "captions", "text")
KEY_COLUMNS = ("key", "__key__")


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
        # The numbered name may be somebody's own name as well.
        return name if number == 1 else self(f"{name}#{number}")


class Columns:
    """Which columns hold the image, the text and the key; None for what is not read.

    Args:
      source: what messages call the file.
      names: its columns.
      image, text, key: as they were given; a usual name is looked for otherwise.
      only: "images" or "texts", to leave the other unread.

    Raises:
      ValueError: if a given column is missing, or neither images nor texts are found.
    """

    def __init__(
        self,
        source: str,
        names: Iterable[str],
        image: str | None,
        text: str | None,
        key: str | None,
        only: str | None,
    ) -> None:
        names = list(names)

        def choose(what: str, given: str | None, usual: Sequence[str], must: bool) -> str | None:
            if not given and not must and not set(usual) & set(names):
                return None
            return choose_column(source, names, what, given, usual)

        self.key = choose("key", key, KEY_COLUMNS, False)
        self.text = self.image = None
        if only != "images":
            self.text = choose("text", text, TEXT_COLUMNS, only == "texts")
        if only != "texts":
            self.image = choose(
                "image", image, IMAGE_COLUMNS, only == "images" or self.text is None
            )

    def used(self) -> list[str]:
        """The columns to read."""
        return [name for name in (self.key, self.image, self.text) if name]


def several_texts(key: str, texts: Sequence[str]) -> Iterator[Item]:
    """An item a text; those after the first have a number in their key."""
    for number, text in enumerate(texts):
        yield Item(f"{key}/{number + 1}" if number else key, text=text)
