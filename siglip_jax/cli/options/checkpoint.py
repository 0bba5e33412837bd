"""Opening a checkpoint that a command names, whatever it is: a released name, a path of
any format, a repository of the hub."""

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip_jax import checkpoints
from siglip_jax.activity import activity
from siglip_jax.cli.options.model import positive
from siglip_jax.config import Siglip, Tower

if TYPE_CHECKING:
    from siglip_jax.converters import OpenCheckpoint


def add_tower_arguments(parser: Any) -> None:
    """What of a checkpoint is meant, and what its files may leave out."""
    parser.add_argument(
        "--architecture",
        metavar="LIKE",
        help="checkpoint of the same architecture, for weights that do not say theirs",
    )
    parser.add_argument(
        "--tower", choices=("image", "text"), help="read this tower alone (default: all there is)"
    )


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    add_tower_arguments(parser)
    parser.add_argument(
        "--res",
        type=positive,
        metavar="PX",
        help="side of the images, for weights that do not say it",
    )


def open_named(
    name: str,
    config: Siglip | None = None,
    res: int | None = None,
    tower: Tower | None = None,
    base: str | None = None,
) -> "OpenCheckpoint":
    """The checkpoint `name`, or one tower of it, open; downloaded if need be. `base`: of a PEFT
    adapter.

    Raises:
      ValueError: if there is none of that name, or it is no SigLIP or does not say enough.
    """
    from siglip_jax.model_files import open_model

    with activity(f"opening {name}", unit="bytes") as step:
        return open_model(
            name,
            config=config,
            res=res,
            tower=tower,
            base=base,
            progress=functools.partial(step.update, what="downloading"),
        )


def released(name: str) -> checkpoints.Checkpoint | None:
    """The row of a released checkpoint that is meant by its name, not by its files."""
    from siglip_jax.fetch import is_path

    if is_path(Path(name).expanduser()):
        return None
    try:
        return checkpoints.find(name)
    except ValueError:
        return None  # a path, a bundled model, a repository; else the error that offers near names


def architecture_of(
    name: str,
    res: int | None = None,
    config: Siglip | None = None,
    tower: Tower | None = None,
) -> Siglip:
    """The architecture of the model `name`; a released one's files are not asked for.

    Args:
      res, config: image side in pixels and architecture, if files do not say it.
      tower: the only one that is meant.
    """
    if row := released(name):
        return row.config.only(tower)
    with open_named(name, config, res, tower) as opened:
        return opened.config


def architecture(args: argparse.Namespace) -> Siglip | None:
    """What `--architecture` and `--res` say; None if the checkpoint itself has to."""
    if args.architecture is None:
        return None
    config = architecture_of(args.architecture, args.res)
    if args.res is None or config.vision is None:
        return config
    return config.at_resolution(args.res)
