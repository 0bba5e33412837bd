"""Former spellings of options: they still work, and name the new one on stderr."""

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any


class FormerOption(argparse.Action):
    """An option that has another name by now."""

    def __init__(self, *args: Any, now: str, **options: Any) -> None:
        super().__init__(*args, help=argparse.SUPPRESS, **options)
        self._now = now

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        value = self.const if self.nargs == 0 else values
        now = self._now if self.const is None else f"{self._now} {self.const}"
        print(f"siglip-jax: {option_string} is called {now} now", file=sys.stderr)
        setattr(namespace, self.dest, value)


def add_former(parser: Any, former: str, now: str, **options: Any) -> None:
    """Accepts the option `former` for `now`, whose `dest` and type `options` give."""
    options.setdefault("default", argparse.SUPPRESS)
    parser.add_argument(former, action=FormerOption, now=now, **options)


def former_value(option: str, former: Mapping[str, str]) -> Callable[[str], str]:
    """argparse type of an option some of whose values have another name by now.

    >>> former_value("--tower", {"images": "image"})("text")
    'text'
    """

    def value(text: str) -> str:
        if text not in former:
            return text
        print(f"siglip-jax: {option} {text} is called {option} {former[text]} now", file=sys.stderr)
        return former[text]

    return value
