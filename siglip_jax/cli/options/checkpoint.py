"""Opening a checkpoint that a command names, whatever it is: a released name, a path of
any format, a repository of the hub."""

import argparse
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from siglip_jax import checkpoints
from siglip_jax.cli.options.model import positive
from siglip_jax.cli.progress import Bar
from siglip_jax.config import Siglip

if TYPE_CHECKING:
    from siglip_jax.converters import Source

# What the functions behind a command call their arguments, and what the command does.
_SPOKEN = (
    (r"pass config, of a model like it for instance: .*", "give --architecture of one like it"),
    (r"pass res=(\d+)", r"give --res \1"),
    (r"give pad ", "give --pad "),
    (r"or force to replace it", "or --force to replace it"),
)


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--architecture",
        metavar="LIKE",
        help="checkpoint of the same architecture, for weights that do not say theirs",
    )
    parser.add_argument(
        "--res",
        type=positive,
        metavar="PX",
        help="side of the images, for weights that do not say it",
    )


@contextlib.contextmanager
def spoken() -> Iterator[None]:
    """Errors inside this say what to give as options."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        for pattern, option in _SPOKEN:
            message = re.sub(pattern, option, message)
        raise ValueError(message) from error


def open_named(name: str, config: Siglip | None, res: int | None) -> "Source":
    """The checkpoint `name`, open; downloaded if need be.

    Raises:
      ValueError: if there is none of that name, or it is no SigLIP or does not say enough.
    """
    from siglip_jax.converters import open_checkpoint
    from siglip_jax.found import find_path

    with spoken():
        with Bar("downloading", unit="bytes") as bar:
            path = find_path(name, progress=bar.update)
        return open_checkpoint(path, config=config, res=res)


def architecture(args: argparse.Namespace) -> Siglip | None:
    """What `--architecture` and `--res` say; None if the checkpoint itself has to."""
    if args.architecture is None:
        return None
    if Path(args.architecture).expanduser().exists():
        with open_named(args.architecture, None, args.res) as source:
            config = source.config
    else:
        config = checkpoints.find(args.architecture).config
    return config if args.res is None else config.at_resolution(args.res)
