"""Recipes from TOML files, strictly: an unknown key or a value of the wrong type is an error.

Nothing here imports jax.
"""

import dataclasses
import tomllib
import types
import typing
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from siglip_jax.messages import choose, did_you_mean, reason
from siglip_jax.training.recipe import Recipe, RecipeError

# What keys were called before.
_RENAMED = {
    "data.image": "image_column",
    "data.caption": "text_column",
    "data.max_unreadable": "max_error_share",
    "evaluate.image": "image_column",
    "evaluate.caption": "text_column",
}


def read_recipe(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file.

    Args:
      path: the file. Paths inside it are taken from the working directory.
      changes: `key.key=value` each, to set in place of what the file says.

    Raises:
      ValueError: if it cannot be read, or says something unknown or impossible.

    >>> _ = Path("recipe.toml").write_text('''
    ... steps = 100
    ... batch = 8
    ... data = {train = "shards.tar"}
    ... model = {like = "siglip_b16_224"}
    ... ''')
    >>> recipe = read_recipe("recipe.toml", ["optimizer.lr=1e-4"])
    >>> recipe.steps, recipe.optimizer.lr
    (100, 0.0001)
    """
    try:
        text = Path(path).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else reason(error)
        raise ValueError(f"{path}: the recipe cannot be read: {said}") from error
    try:
        table = tomllib.loads(text)
        for change in changes:
            _set(table, change)
        return recipe_from_dict(table)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def recipe_from_dict(table: Mapping[str, Any]) -> Recipe:
    """A recipe from the tables of a TOML file.

    Raises:
      ValueError: if a key is unknown (near ones are offered) or a value impossible.

    >>> recipe_from_dict({"steps": 9, "batch": 8, "data": {"train": "x"}, "optimiser": {}})
    Traceback (most recent call last):
      ...
    siglip_jax.training.recipe_tables.RecipeError: optimiser is unknown; did you mean optimizer?
    """
    return _build(Recipe, _renamed(table), "")


def _renamed(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with the present names of keys; a warning says what they were called."""
    made = dict(table)
    for old, new in _RENAMED.items():
        where, _, key = old.partition(".")
        inside = made.get(where)
        if not isinstance(inside, Mapping) or key not in inside:
            continue
        if new in inside:
            raise RecipeError(f"{old} is called {where}.{new} now, which is given too")
        warnings.warn(f"{old} is called {where}.{new} now", stacklevel=3)
        made[where] = {new if k == key else k: v for k, v in inside.items()}
    return made


def _set(table: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals:
        raise RecipeError(f"expected key=value, such as optimizer.lr=1e-4, got {change!r}")
    try:
        parsed = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value  # A bare word is a string.
    *path, last = key.strip().split(".")
    for name in path:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise RecipeError(f"{change}: {name} is not a table")
    table[last] = parsed


def _build(cls: Any, table: Any, where: str) -> Any:
    """A dataclass from a table, with every problem's place in its message."""
    if not isinstance(table, Mapping):
        raise RecipeError(f"[{where}] must be a table, got {table!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    inside = f"{where}." if where else ""
    for key in table:
        if key not in fields:
            hint = did_you_mean(key, fields, otherwise=f"; there are {', '.join(fields)}")
            raise RecipeError(f"{inside}{key} is unknown{hint}")
    values = {k: _value(hints[k], v, f"{inside}{k}") for k, v in table.items()}
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise RecipeError(f"{inside}{name} is missing")
    try:
        return cls(**values)
    except RecipeError:
        raise
    except (ValueError, TypeError) as error:
        raise RecipeError(f"[{where}]: {error}" if where else str(error)) from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        # TOML has no null; what may be None is left out instead.
        hint = next(h for h in get_args(hint) if h is not type(None))
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    if origin is Literal:
        if value not in get_args(hint):
            try:
                choose(where, value, get_args(hint))
            except ValueError as error:
                raise RecipeError(str(error)) from None
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where} must be a list, got {value!r}")
        inner = get_args(hint)[0]
        return tuple(_value(inner, v, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        kinds = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
        raise RecipeError(f"{where} must be {kinds[hint]}, got {value!r}")
    return value
