"""`siglip-jax --print-completion SHELL`: a script by which a shell completes the command."""

import argparse
from typing import Any

from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.fetch import BUNDLED
from siglip_jax.messages import optional_package

SHELLS = ("bash", "zsh")
# What stands for a path in help, and what for a model: a name, or a path.
_PATHS = {"DATA", "DST", "FILE", "FILE.npz", "FOLDER", "IMAGES", "INDEX", "OUT", "RECIPE", "SOURCE"}
_MODELS = {"A", "B", "LIKE", "MODEL", "SRC"}
_FUNCTION = "_siglip_jax_models"


class PrintCompletion(argparse.Action):
    """Prints the script of a shell, and ends."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, choices=SHELLS, metavar="{bash,zsh}", **options)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        print(completion(parser, values))
        parser.exit(0)


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for `shell`: commands, options, choices, names of models, files.

    Raises:
      ValueError: if shtab, which writes it, is not installed.
    """
    shtab: Any = optional_package("shtab", why="completion needs it")
    models = {name: _FUNCTION for name in SHELLS}
    for action in _arguments(parser):
        if action.choices is None and action.metavar in _PATHS | _MODELS:
            action.complete = models if action.metavar in _MODELS else shtab.FILE
    names = " ".join([*BUNDLED, *(checkpoint.name for checkpoint in CHECKPOINTS)])
    preamble = {
        "bash": f'{_FUNCTION}() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
        "zsh": f"{_FUNCTION}() {{ compadd -- {names}; _files; }}",
    }
    return shtab.complete(parser, shell, preamble=preamble)


def _arguments(parser: argparse.ArgumentParser) -> list[Any]:
    """Of the parser and of its commands."""
    found: list[Any] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                found += _arguments(command)
        else:
            found.append(action)
    return found
