"""The command `siglip-jax`. Nothing here imports jax: a subcommand does when it runs."""

import argparse
import importlib.metadata
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from siglip_jax.activity import activity
from siglip_jax.cli.advice import out_of_memory, spoken
from siglip_jax.cli.commands import (
    bench,
    calibrate,
    check,
    convert,
    demo,
    diff,
    doctor,
    embed,
    evaluate,
    explain,
    fetch,
    plan,
    score,
    search,
    serve,
    show,
    train,
    verify,
)
from siglip_jax.cli.commands import list as list_checkpoints
from siglip_jax.cli.completion import PrintCompletion
from siglip_jax.cli.distributed import finish, settle
from siglip_jax.cli.ending import INTERRUPTED, Interrupts, leave
from siglip_jax.cli.options.former import FormerOption
from siglip_jax.cli.output import printable
from siglip_jax.cli.progress import Progress
from siglip_jax.cli.prose import ProseFormatter
from siglip_jax.data.failures import SettingError
from siglip_jax.errors import ModelError
from siglip_jax.fetch import home
from siglip_jax.messages import did_you_mean, not_installed
from siglip_jax.private_folder import make_private

COMMANDS = (
    demo,
    list_checkpoints,
    show,
    fetch,
    score,
    explain,
    embed,
    search,
    serve,
    check,
    evaluate,
    calibrate,
    train,
    convert,
    diff,
    verify,
    doctor,
    plan,
    bench,
)


class Parser(argparse.ArgumentParser):
    """argparse, with one line for an error and near names for what is misspelled."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # First, because argparse would rather complain of what a misspelled option left out.
        known = self._option_string_actions
        for argument in sys.argv[1:] if args is None else args:
            command = self._subparsers is not None and not argument.startswith("-")
            if argument == "--" or command:
                break  # what follows a command is for its own parser
            name = argument.partition("=")[0]
            # With a space it is no option but a value, such as the label "--- a dog".
            if name.startswith("--") and name not in known and " " not in argument:
                current = [
                    option
                    for option, action in known.items()
                    if option.startswith("--") and not isinstance(action, FormerOption)
                ]
                hint = did_you_mean(name, current)
                self.error(f"there is no option {name}{hint}")
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            if action.choices is not None:
                error.message += did_you_mean(str(value), list(action.choices))
            raise

    def error(self, message: str) -> NoReturn:
        names = ", ".join(command.NAME for command in COMMANDS)
        if message.startswith("argument COMMAND: invalid choice: "):
            wrong = message.removeprefix("argument COMMAND: invalid choice: ").split(" (choose")[0]
            known = [command.NAME for command in COMMANDS]
            hint = did_you_mean(wrong.strip("'\""), known, otherwise=f"; there are {names}")
            message = f"no command is called {wrong}{hint}"
        elif message.endswith("required: COMMAND"):
            message = f"no command is given; there are {names}"
        elif "required" in message and "IMAGES" in message:
            message += ", and come before --labels, which takes all that follows it"
        elif message.startswith("unrecognized arguments: ") and " -" not in message:
            message += "; what is no option and no option's value comes before the options"
        fail(f"{message} (see {self.prog} --help)", self.prog)
        raise SystemExit(2)


def fail(message: str, prog: str = "siglip-jax") -> None:
    """Prints an error as one line on stderr."""
    one_line = "; ".join(line.strip() for line in message.splitlines() if line.strip())
    print(f"{prog}: error: {printable(one_line)}", file=sys.stderr)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="siglip-jax",
        description="SigLIP and SigLIP 2 in JAX, numerically faithful to big_vision.",
        allow_abbrev=False,
    )
    version = importlib.metadata.version("siglip-jax")
    parser.add_argument("--version", action="version", version=f"siglip-jax {version}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        help="print a script that completes this command in a shell (see docs/command_line.md)",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.NAME,
            help=command.HELP,
            usage=command.USAGE,
            description=command.__doc__,
            formatter_class=ProseFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(sub)
        sub.add_argument("--quiet", action="store_true", help="show no progress on stderr")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=command.run, options=frozenset(sub._option_string_actions))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit code: 0, 2 after bad input, 130 if interrupted."""
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (`head`) has what it wanted; Python would complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = make_parser().parse_args(argv)
    except ValueError as error:  # of an option that does its work at once
        fail(str(error))
        return 2
    except SystemExit:
        sys.stdout.flush()  # help, to a reader that may have gone away
        raise
    # Read by jax when a command imports it: programs compiled once stay compiled.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and _may_keep(home() / "compiled"):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(home() / "compiled")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not be valid Unicode; an escape in the output beats losing all of it.
        sys.stdout.reconfigure(errors="backslashreplace")
    shown = Progress(silent=args.quiet or getattr(args, "json", False))
    args.progress = shown
    interrupts = Interrupts(shown.close)
    try:
        with warnings.catch_warnings(), activity(f"siglip-jax {args.command}"), interrupts, shown:
            warnings.showwarning = _warn
            try:
                return args.run(args)
            finally:
                # Opened to be loaded (`cli.options.model`), which an error may have come before.
                if opened := getattr(args, "opened", None):
                    opened.close()
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        if args.debug:
            raise
        if not interrupts.said:
            fail("interrupted")
        return INTERRUPTED
    except (ValueError, OSError, MemoryError, RuntimeError, ImportError) as error:
        if isinstance(error, RuntimeError) or "gloo" in str(error).lower():
            settle()
        if args.debug or not (message := _explained(error, args)):
            raise
        fail(message)
        return 2


def _may_keep(folder: Path) -> bool:
    """Whether programs may be kept in `folder`: what others could have written is not run."""
    try:
        shared = make_private(folder)
    except OSError:
        return False
    if shared:
        advice = "or set JAX_COMPILATION_CACHE_DIR to a folder of your own"
        message = f"compiled programs are not kept: {shared}, {advice}"
        print(f"siglip-jax: warning: {message}", file=sys.stderr)
    return not shared


def _explained(error: Exception, args: argparse.Namespace) -> str | None:
    """What to tell the user, None for an error that is our own."""
    # An error about a setting is about an option, if the command has it.
    if isinstance(error, SettingError) and hasattr(args, error.setting):
        return error.on_command_line()
    if isinstance(error, ModelError):
        return spoken(error, args.options)
    if isinstance(error, ImportError):
        return not_installed(error)
    if isinstance(error, (ValueError, OSError)):
        return str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return out_of_memory(args.options)
    return None


def _warn(message, category, filename, lineno, file=None, line=None) -> None:
    line = printable(" ".join(str(message).split()))
    print(f"siglip-jax: warning: {line}", file=sys.stderr)


def run() -> NoReturn:
    """The command as a process."""
    sys.exit(leave(finish(main())))


if __name__ == "__main__":
    run()
