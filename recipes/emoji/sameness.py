"""Which emoji cannot be told apart: drawn identically, or called the same."""

from collections import defaultdict
from collections.abc import Iterable

from inventory import Emoji


def same_text(caption: str) -> str:
    """What two captions have in common when a reader takes them for the same.

    >>> same_text("Flag:  Jordan") == same_text("flag jordan")
    True
    """
    return " ".join(caption.lower().replace(":", " ").replace(",", " ").split())


def classes(members: Iterable[Iterable[str]]) -> dict[str, str]:
    """Key -> the first key of its class, where each of `members` lists keys of one class.

    >>> classes([["a"], ["c", "b"], ["d", "c"]])
    {'a': 'a', 'b': 'b', 'c': 'b', 'd': 'b'}
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for keys in members:
        first, *rest = sorted(keys)
        for key in (first, *rest):
            low, high = sorted((root(first), root(key)))
            parent[high] = low
    return {key: root(key) for key in sorted(parent)}


def identical(emoji: list[Emoji], pictures: dict[str, bytes]) -> dict[str, str]:
    """Key -> class, of emoji with the same picture or, in any language, the same name.

    Args:
      pictures: key -> file, of one artist.
    """
    alike: dict[tuple, list[str]] = defaultdict(list)
    for one in emoji:
        alike[("picture", pictures[one.key])].append(one.key)
        for language, name in one.names.items():
            alike[(language, same_text(name))].append(one.key)
    return classes(alike.values())
