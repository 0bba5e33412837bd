"""The JSON files that say what a model is: read with plain errors, written for people."""

import json
from pathlib import Path
from typing import Any, cast

from siglip_jax.json_text import parsed, read_text


class Settings:
    """A JSON object, or a part of one, that knows where it stands.

    >>> Settings({"width": 8}, "config.json").number("width")
    8
    >>> Settings({"width": 8}, "config.json").number("heads")
    Traceback (most recent call last):
      ...
    ValueError: config.json does not say heads
    """

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` where there is none."""
        return self.values[key] if key in self else default

    def part(self, key: str) -> "Settings":
        """The object under `key`; empty where there is none."""
        values = self.get(key, {})
        if not isinstance(values, dict):
            raise ValueError(f"{self.where}: {key} is {values!r}, expected an object")
        return Settings(cast(dict[str, Any], values), f"{self.where}, {key}")

    def number(self, key: str, default: int | None = None) -> int:
        """A positive integer. A pair of equal ones counts as one.

        Raises:
          ValueError: if it is absent and there is no default, or something else.
        """
        value = _one_of_equals(self.get(key, default))
        if value is None:
            raise ValueError(f"{self.where} does not say {key}")
        if type(value) is not int or value < 1:
            raise ValueError(f"{self.where}: {key} is {value!r}, expected a positive integer")
        return value

    def require(self, key: str, allowed: tuple[Any, ...], default: Any, why: str) -> None:
        """Raises a ValueError unless the value is one of `allowed`."""
        value = self.get(key, default)
        if value not in allowed:
            raise ValueError(f"{self.where}: {key} is {value!r}; {why}")


def _one_of_equals(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    values = cast(list[Any], value)
    return values[0] if len(set(values)) == 1 else values


def read_settings(path: Path) -> Settings:
    """The object in a JSON file.

    Raises:
      ValueError: if it cannot be read or is no JSON object.
    """
    try:
        values = parsed(read_text(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: not a JSON object")
    return Settings(cast(dict[str, Any], values), str(path))


def plain_name(name: Any, where: str) -> str:
    """`name`, if it is that of a file in the same folder; a card may come from anyone.

    Raises:
      ValueError: if it is anything else.

    >>> plain_name("../x.npz", "siglip_jax.json")
    Traceback (most recent call last):
    ValueError: siglip_jax.json names '../x.npz'; expected the plain name of a file beside it
    """
    plain = isinstance(name, str) and name not in ("", ".", "..") and "\0" not in name
    if not plain or "/" in name or "\\" in name:
        raise ValueError(f"{where} names {name!r}; expected the plain name of a file beside it")
    return name


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a JSON object."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
