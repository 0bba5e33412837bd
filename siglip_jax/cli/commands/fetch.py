"""Bring all files of a model to this machine: weights, configuration, vocabulary.

MODEL is any name of a released checkpoint, or a repository of the Hugging Face hub. Files
go to $SIGLIP_JAX_HOME (default: ~/.cache/siglip_jax) or to the hub's cache, from where all
commands read them, without a network too. A download that was cut off goes on where it
ended; what arrives is checked against the digest that the server states.

  siglip-jax fetch siglip2_b16_256
  SIGLIP_JAX_HOME=/media/stick siglip-jax fetch ViT-B-16-SigLIP   # for another machine
"""

import argparse
import functools

from siglip_jax.activity import activity
from siglip_jax.cli.output import add_json_argument, aligned, print_json

NAME = "fetch"
HELP = "bring the files of a model to this machine"
USAGE = "%(prog)s MODEL [--revision REVISION] [--json]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="name of a model, or a hub repository")
    parser.add_argument(
        "--revision", metavar="REVISION", help="of a repository: a branch, tag or commit"
    )
    add_json_argument(parser, "the files")


def run(args: argparse.Namespace) -> int:
    from siglip_jax.converters import needed_files
    from siglip_jax.fetch import fetch_files

    with activity(f"looking for {args.model}", unit="bytes") as step:
        found = fetch_files(
            args.model,
            needed_files,
            revision=args.revision,
            progress=functools.partial(step.update, what="downloading"),
        )
    files = [
        {
            "file": file.what,
            "path": str(file.path),
            "bytes": file.path.stat().st_size,
            "digest": file.digest,
        }
        for file in found
    ]
    if args.json:
        print_json({"model": args.model, "files": files})
        return 0
    rows = [("FILE", "BYTES", "DIGEST", "PATH")]
    for file in files:
        digest = f"{file['digest'][:16]}... checked" if file["digest"] else "none stated"
        rows.append((file["file"], f"{file['bytes']:,}", digest, file["path"]))
    print(aligned(rows, "lrll"))
    return 0
