"""The command `siglip-jax`. Nothing here imports jax: a subcommand does when it runs."""

import argparse
import difflib
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from siglip_jax.cli import embed, list_checkpoints, score, show
from siglip_jax.locate import home

COMMANDS = (list_checkpoints, show, score, embed)


class Parser(argparse.ArgumentParser):
    """argparse, with one line for an error and near names for a misspelled command."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice: " in message and "COMMAND" in message:
            wrong = message.split("invalid choice: ")[1].split("'")[1]
            names = [command.NAME for command in COMMANDS]
            near = difflib.get_close_matches(wrong, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            message = f"no command is called {wrong!r}; {hint}"
        fail(f"{message} (see {self.prog} --help)", self.prog)
        raise SystemExit(2)


def fail(message: str, prog: str = "siglip-jax") -> None:
    """Prints an error as one line on stderr."""
    print(f"{prog}: error: {' '.join(message.split())}", file=sys.stderr)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="siglip-jax",
        description="SigLIP and SigLIP 2 in JAX, numerically faithful to big_vision.",
        allow_abbrev=False,
    )
    version = importlib.metadata.version("siglip-jax")
    parser.add_argument("--version", action="version", version=f"siglip-jax {version}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.NAME,
            help=command.HELP,
            description=command.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(sub)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit code: 0, or 2 after bad input."""
    args = make_parser().parse_args(argv)
    # Read by jax when a command imports it: programs compiled once stay compiled.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(home() / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    warnings.showwarning = _warn
    try:
        return args.run(args)
    except BrokenPipeError:
        # The reader (`head`) has what it wanted. Python would complain when it closes stdout.
        sys.stdout = None
        return 0
    except KeyboardInterrupt:
        if args.debug:
            raise
        fail("interrupted")
        return 130
    except (ValueError, OSError) as error:
        if args.debug:
            raise
        fail(str(error))
        return 2


def _warn(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"siglip-jax: warning: {' '.join(str(message).split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
