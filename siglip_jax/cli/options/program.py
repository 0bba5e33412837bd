"""`--program FILE`: score and embed with what `siglip-jax plan --save` wrote."""

import argparse
from typing import TYPE_CHECKING

from siglip_jax.cli.options.model import available_mesh

if TYPE_CHECKING:
    from siglip_jax.programs import SavedProgram


def add_program_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--program",
        metavar="FILE",
        help="exported program that siglip-jax plan --save wrote for these devices; starts "
        "without tracing the model, with the dtype and the batch sizes of the file",
    )


def saved_program(args: argparse.Namespace, *, local: bool = False) -> "SavedProgram | None":
    """The program that the arguments name, for all devices or for those of this process.

    Raises:
      ValueError: if it cannot be read, is for other devices, or another option says otherwise.
    """
    if args.program is None:
        return None
    from siglip_jax.programs import load_program

    program = load_program(args.program, list(available_mesh(local=local).devices.flat))
    fixed = {name: getattr(program.execution, name) for name in ("dtype", "weights", "attention")}
    fixed["batch_size"] = program.batches.get("images", program.batches.get("texts"))
    for name, value in fixed.items():
        given = getattr(args, name)
        if given not in (None, value):
            option = name.replace("_", "-")
            raise ValueError(
                f"--{option} {given}: {args.program} was saved with {value}; "
                f"leave --{option} out, or save another with siglip-jax plan"
            )
    return program
