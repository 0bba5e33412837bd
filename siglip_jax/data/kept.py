"""Columns of a source that a job carries along, such as the URL of each image and its licence."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from siglip_jax.data.failures import SettingError
from siglip_jax.messages import suggestions

# What has columns, for a message about what has none.
WITH_COLUMNS = "Parquet, .arrow, .csv, .tsv, .jsonl, tars (the fields of their .json) and tfds:"
_COLUMNS = 30  # that a message names


def kept_names(keep: Sequence[str]) -> tuple[str, ...]:
    """The names of columns to keep.

    Raises:
      ValueError: if they are no list of names, or one of them is there twice.

    >>> kept_names(["url", "caption"])
    ('url', 'caption')
    """
    if isinstance(keep, str):
        raise ValueError(f"keep must be a list of names of columns, got the string {keep!r}")
    names = tuple(keep)
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise ValueError(f"keep must be a list of names of columns, got {name!r} in it")
        if name in names[:number]:
            raise SettingError(f"column {name} is named twice", "keep", "name it once in {}")
    return names


def refuse_not_there(source: object, columns: Iterable[str], names: Iterable[str]) -> None:
    """Raises a SettingError if one of `names` is none of `columns`; says which there are."""
    columns = list(columns)
    for name in names:
        if name in columns:
            continue
        near = next(iter(suggestions(name, columns)), None)
        some = ", ".join(columns[:_COLUMNS]) + ", ..." * (len(columns) > _COLUMNS)
        raise SettingError(
            f"{source}: no column {name}; the columns are {some}",
            "keep",
            "did you mean {}?" if near else "name some of them with {}",
            near,
        )


def as_text(value: Any) -> str | None:
    """A value of JSON as text, which every value of a column can be; null is None.

    >>> as_text("a dog"), as_text(0.5), as_text(None), as_text([1, None])
    ('a dog', '0.5', None, '[1, null]')
    """
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def texts_of(values: Mapping[Any, Any], names: Iterable[str]) -> dict[str, Any] | None:
    """What an item keeps of a row of a table or an object of JSON; None where nothing is kept."""
    return {name: as_text(values.get(name)) for name in names} or None


def fields_of(data: bytes | None) -> dict[str, Any]:
    """The fields of a .json; none where there is no such file.

    Raises:
      ValueError: if it is no JSON object.
    """
    try:
        fields = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its .json cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"its .json must hold an object, got {type(fields).__name__}")
    return fields


def text_types(names: Iterable[str]) -> dict[str, Any]:
    """Types of columns whose format has none."""
    if not names:
        return {}
    import pyarrow

    return dict.fromkeys(names, pyarrow.string())


def schema_types(
    source: str, schema: Any, names: Iterable[str], image: str | None
) -> dict[str, Any]:
    """Types of columns in a schema of pyarrow, as they are written: without dictionaries.

    Args:
      source: what messages call the file.
      image: the column that holds the images.

    Raises:
      SettingError: if one is not there, or holds the images themselves.
    """
    refuse_not_there(source, schema.names, names)
    types = {name: _plain(schema.field(name).type) for name in names}
    if image in types and str(types[image]) != "string":
        raise SettingError(
            f"{source}: column {image} holds the images themselves", "keep", "leave it out of {}"
        )
    return types


def common_types(found: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Types of the kept columns of files by their names, which must be the same in all.

    A column of nulls alone may be of any type in other files, and is one of strings otherwise.

    Raises:
      SettingError: if a column is of two types.
    """
    types: dict[str, Any] = {}
    first: dict[str, str] = {}
    for source, own in found:
        for name, kind in own.items():
            there = types.get(name)
            if there is None or str(there) == "null":
                types[name], first[name] = kind, source
            elif there != kind and str(kind) != "null":
                raise SettingError(
                    f"{source}: column {name} holds {kind}, and in {first[name]} {there}",
                    "keep",
                    "write it in one type, or leave it out of {}",
                )
    nulls = [name for name, kind in types.items() if str(kind) == "null"]
    return types | text_types(nulls)


def kept_rows(columns: Mapping[str, Any], types: Mapping[str, Any]) -> list[dict[str, Any] | None]:
    """What each row keeps: arrays of one value, in which any type stays what it is.

    Args:
      columns: arrays of pyarrow, of the same length.
      types: of the job's columns, in which these are to be.

    Raises:
      ValueError: if there are bytes in them that are no text.
    """
    cast = {}
    for name, column in columns.items():
        column.validate(full=True)
        cast[name] = column if column.type == types[name] else column.cast(types[name])
    count = len(next(iter(cast.values())))
    return [{name: own.slice(row, 1) for name, own in cast.items()} for row in range(count)]


def _plain(kind: Any) -> Any:
    """The type that says the same in every file, however a program holds it in memory."""
    import pyarrow
    from pyarrow import types

    if isinstance(kind, pyarrow.BaseExtensionType):
        return _plain(kind.storage_type)
    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if types.is_large_string(kind) or str(kind) == "string_view":
        return pyarrow.string()
    if types.is_large_binary(kind) or str(kind) == "binary_view":
        return pyarrow.binary()
    return kind
