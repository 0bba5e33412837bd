"""From the values of a column to items: what is none is an item in error, never an exception."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from siglip_jax.data.fetch import fetched
from siglip_jax.data.item import Item


def image_items(values: Sequence[Any]) -> Iterator[Item]:
    """Images: bytes of a file, a path or URL, `datasets`' {"bytes", "path"}, Pillow's, uint8.

    Remote ones are fetched, some ahead.

    >>> [item.error for item in image_items([b"...", None, 3])]
    [None, 'there is no image', 'expected bytes, a path, a Pillow image or an array, got int']
    """
    return fetched(map(_image_item, values))


def text_items(values: Sequence[Any]) -> Iterator[Item]:
    """Texts.

    >>> [item.error for item in text_items(["a dog", float("nan"), 3])]
    [None, 'there is no text', 'expected a string, got int']
    """
    return map(_text_item, values)


def _image_item(value: Any) -> Item:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytearray | memoryview):
        value = bytes(value)
    if isinstance(value, str | os.PathLike):
        value = os.fspath(value)
    if _missing(value) or (isinstance(value, str | bytes) and not value):
        return Item("", error="there is no image")
    if isinstance(value, str | bytes | Image.Image | np.ndarray):
        return Item("", value)  # pyright: ignore[reportArgumentType]
    kind = type(value).__name__
    return Item("", error=f"expected bytes, a path, a Pillow image or an array, got {kind}")


def _text_item(value: Any) -> Item:
    if isinstance(value, str):
        return Item("", text=value)
    if _missing(value):
        return Item("", error="there is no text")
    return Item("", error=f"expected a string, got {type(value).__name__}")


def _missing(value: Any) -> bool:
    """Whether it is None, or what pandas puts in its place."""
    return value is None or (isinstance(value, float) and np.isnan(value))
