"""JSON that others wrote: parsed within bounds, wrong in one way only."""

import json
from pathlib import Path
from typing import Any

# A list of empty lists takes twenty times its text in memory.
MOST = 16 << 20


def parsed(text: str | bytes) -> Any:
    """What a text of JSON says.

    Raises:
      ValueError: if it is no JSON, or nested deeper than Python follows.

    >>> parsed('{"a": 1}')
    {'a': 1}
    >>> parsed("[" * 100_000)
    Traceback (most recent call last):
    ValueError: nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_text(path: Path, most: int = MOST) -> str:
    """A small file of UTF-8.

    Raises:
      ValueError: if it has more than `most` bytes, or is no UTF-8.
      OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"more than {most:,} bytes")
    return data.decode("utf-8")
