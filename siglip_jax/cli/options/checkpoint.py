"""Opening a checkpoint that a command names, whatever it is: a released name, a path of
any format, a repository of the hub, an adapter with its base."""

import argparse
import functools
from typing import TYPE_CHECKING, Any

from siglip_jax.activity import activity
from siglip_jax.cli.options.former import former_value
from siglip_jax.cli.options.model import positive
from siglip_jax.config import Siglip, Tower, Vision

if TYPE_CHECKING:
    from siglip_jax.converters import OpenCheckpoint


def add_tower_arguments(parser: Any) -> None:
    """What of a checkpoint is meant, and what its files may leave out."""
    parser.add_argument(
        "--base", metavar="MODEL", help="model that a PEFT adapter is of, and is merged into"
    )
    parser.add_argument(
        "--architecture",
        metavar="LIKE",
        help="checkpoint of the same architecture, for weights that do not say theirs",
    )
    parser.add_argument(
        "--tower",
        choices=("image", "text"),
        type=former_value("--tower", {"images": "image", "texts": "text"}),
        help="read this tower alone (default: all there is)",
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
    vocabulary: str | None = None,
) -> "OpenCheckpoint":
    """The checkpoint `name`, or one tower of it, open; downloaded if need be.

    Args:
      config: architecture of weights that do not say theirs.
      res: image side in pixels, of weights that neither say it nor are as `config`.
      base: of a PEFT adapter.
      vocabulary: sentencepiece file in the place of the one beside the weights.

    Raises:
      ValueError: if there is none of that name, or it is no SigLIP or does not say enough.
    """
    from siglip_jax.model_files import open_model

    with activity(f"opening {name}", unit="bytes") as step:

        def opened(config: Siglip | None, res: int | None) -> "OpenCheckpoint":
            return open_model(
                name,
                config=config,
                res=res,
                tower=tower,
                vocabulary=vocabulary,
                base=base,
                progress=functools.partial(step.update, what="downloading"),
            )

        try:
            return opened(config, None)
        except ValueError:
            if res is None:
                raise
            # It may be of that size, which its files, or those of one like it, do not say.
            if config is not None and isinstance(config.vision, Vision):
                config = config.at_resolution(res)
            return opened(config, res)


def check_res(args: argparse.Namespace, *configs: Siglip) -> None:
    """A ValueError if `--res` is the resolution of none of these, which keep theirs."""
    if args.res is None or any(getattr(c.vision, "res", None) == args.res for c in configs):
        return
    vision = configs[0].vision
    takes = f"of {vision.res} px" if isinstance(vision, Vision) else "of any size" if vision else ""
    raise ValueError(
        f"--res {args.res}: it is for weights that do not say their size; these take "
        f"{f'images {takes}' if takes else 'no images'}"
    )


def architecture_of(
    name: str,
    res: int | None = None,
    config: Siglip | None = None,
    tower: Tower | None = None,
    base: str | None = None,
) -> Siglip:
    """The architecture of the model `name`; a released one's files are not asked for.

    Args:
      res, config: image side in pixels and architecture, if files do not say it.
      tower: the only one that is meant.
      base: of a PEFT adapter.
    """
    from siglip_jax.fetch import released

    if base is None and (row := released(name)):
        return row.config.only(tower)
    with open_named(name, config, res, tower, base) as opened:
        return opened.config


def architecture(args: argparse.Namespace) -> Siglip | None:
    """What `--architecture` says; None if the checkpoint itself has to."""
    return None if args.architecture is None else architecture_of(args.architecture, args.res)
