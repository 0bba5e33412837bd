"""Lists of labels and texts: a text file of lines, JSON, YAML, or a column of a table."""

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from siglip_jax.data.columns import TABLE_ENDINGS, TEXT_COLUMNS
from siglip_jax.data.separated import Lines, header_of, separated
from siglip_jax.data.storage import open_binary, read_bytes

_YAML = (".yaml", ".yml")
_COLUMNS = ("label", "labels", "name", "class", "class_name", "title", *TEXT_COLUMNS)
# Under these a file may hold its list: transformers' config.json, the data.yaml of detectors.
_KEYS = ("labels", "names", "classes", "id2label", "texts")


def read_lines(path: str) -> list[str]:
    r"""The lines of a text file, or of standard input for `-`, without blank ones.

    Only line breaks end a line: "\u2028" and its kind are part of one.

    Raises:
      ValueError: if it cannot be read as UTF-8 text.
    """
    return _lines(_text(path))


def read_text_list(path: str) -> list[str]:
    """The labels or texts in a file, or on standard input for `-`, in order.

    A .json or .yaml holds a list, a mapping of numbers to names, or one of these under
    `labels`, `names`, `classes`, `id2label` or `texts`; a .csv, .tsv or .jsonl has a column
    called label, name, class, caption or text, or no more than one. Anything else is lines, but
    for what is JSON by its content.

    Raises:
      ValueError: if it cannot be read, is empty, or holds something that is no string.

    >>> from pathlib import Path
    >>> _ = Path("labels.json").write_text('{"1": "a cat", "0": "a dog"}')
    >>> read_text_list("labels.json")
    ['a dog', 'a cat']
    """
    name = path.lower()
    spoken = "standard input" if path == "-" else path
    if name.endswith(TABLE_ENDINGS[:2]):
        found = _column(path)
    else:
        text = _text(path)
        if name.endswith(_YAML):
            found = _strings(spoken, _yaml(spoken, text))
        elif name.endswith(TABLE_ENDINGS[2:]):
            found = [_row(spoken, number, line) for number, line in enumerate(_lines(text), 1)]
        elif name.endswith(".json"):
            found = _strings(spoken, _json(spoken, text))
        elif text.lstrip().startswith(("[", "{")) and (plain := _is_json(text)) is not None:
            found = _strings(spoken, plain)
        else:
            found = _lines(text)
    if not found:
        raise ValueError(f"{spoken}: expected one text a line, got none")
    empty = next((number for number, text in enumerate(found, 1) if not text.strip()), None)
    if empty is not None:
        raise ValueError(f"{spoken}: text {empty:,} of {len(found):,} is empty")
    return found


def _text(path: str) -> str:
    if path == "-":
        # Standard input is bytes, but where somebody has put text in its place.
        source = getattr(sys.stdin, "buffer", None)
        data = source.read() if source is not None else sys.stdin.read().encode()
    else:
        data = read_bytes(path, pipe=True)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        spoken = "standard input" if path == "-" else path
        raise ValueError(f"{spoken}: not UTF-8 text") from error


def _lines(text: str) -> list[str]:
    return [line for part in re.split(r"\r\n|\n|\r", text) if (line := part.strip())]


def _is_json(text: str) -> Any:
    """What `text` is as JSON; None if it is none, as `[UNK]` is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json(spoken: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{spoken}: not JSON: {error}") from error


def _yaml(spoken: str, text: str) -> Any:
    import yaml  # comes with huggingface_hub

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{spoken}: not YAML: {said}") from error


def _strings(spoken: str, plain: Any) -> list[str]:
    """The list in what a file says."""
    if isinstance(plain, dict):
        key = next((key for key in _KEYS if key in plain), None)
        if key is not None:
            return _strings(spoken, plain[key])
        if not all(str(key).isdecimal() for key in plain):
            raise ValueError(
                f"{spoken}: expected a list, numbers with names, or one of these under "
                f"{', '.join(_KEYS)}; got the keys {', '.join(map(str, [*plain][:4]))}"
            )
        plain = [plain[key] for key in sorted(plain, key=int)]
    if not isinstance(plain, list):
        raise ValueError(f"{spoken}: expected a list of strings, got {type(plain).__name__}")
    for number, text in enumerate(plain, 1):
        if not isinstance(text, str):
            raise ValueError(
                f"{spoken}: text {number:,} of {len(plain):,} is {text!r:.40}, not a string; "
                "put it in quotation marks"
            )
    return [text.strip() for text in plain]


def _row(spoken: str, number: int, line: str) -> str:
    """The text of a line of JSON: a string, or an object with a column of texts."""
    plain = _json(f"{spoken}, line {number:,}", line)
    if isinstance(plain, dict):
        plain = plain[_chosen(f"{spoken}, line {number:,}", list(plain))]
    return _strings(f"{spoken}, line {number:,}", [plain])[0]


def _column(path: str) -> list[str]:
    with open_binary(path) as opened:
        lines = Lines(opened, path)
        names, style = header_of(lines, None)
        if len(names) == 1 and names[0].lower() not in _COLUMNS:
            # One text a line, without a name above them.
            return [names[0], *(row[0].strip() for row in separated(lines, style))]
        place = names.index(_chosen(path, names))
        return [row[place].strip() if place < len(row) else "" for row in separated(lines, style)]


def _chosen(spoken: str, names: Sequence[str]) -> str:
    """The column of texts."""
    lower = {name.lower(): name for name in reversed(names)}
    found = next((lower[name] for name in _COLUMNS if name in lower), None)
    if found is None and len(names) == 1:
        found = names[0]
    if found is None:
        raise ValueError(
            f"{spoken}: no column {', '.join(_COLUMNS[:4])} or {_COLUMNS[-1]}; the columns are "
            f"{', '.join(names)}"
        )
    return found
