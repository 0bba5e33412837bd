"""Trees of parameters: nested dictionaries, or one with names such as `txt/head/bias`."""

from collections.abc import Mapping
from typing import Any, cast


def flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries as one, its names joined by '/'; `nested` is its inverse.

    >>> flatten({"txt": {"head": {"bias": 0}}, "t": 1})
    {'txt/head/bias': 0, 't': 1}
    """
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            inner = cast(Mapping[str, Any], value)
            flat |= {f"{key}/{name}": leaf for name, leaf in flatten(inner).items()}
        else:
            flat[key] = value
    return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Names joined by '/' as nested dictionaries.

    >>> nested({"txt/head/bias": 0, "t": 1})
    {'txt': {'head': {'bias': 0}}, 't': 1}
    """
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        insert(tree, name, leaf)
    return tree


def insert(tree: dict[str, Any], name: str, leaf: Any) -> None:
    """Puts one leaf into nested dictionaries, in place."""
    *path, last = name.split("/")
    for key in path:
        tree = tree.setdefault(key, {})
    tree[last] = leaf
