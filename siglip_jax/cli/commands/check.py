"""Check the output of a bulk job: every file, by the digest that its ledger has of it.

  siglip-jax check index/

A file that is missing or damaged is named. The command that wrote the folder mends it: it
does the shard again (in a bucket with --retry, once what is damaged is removed).

Exit code: 0 if all files are as the job wrote them, 2 if one is not, or FOLDER is no job's.
"""

import argparse
import sys

from siglip_jax.cli.output import add_json_argument, print_json
from siglip_jax.messages import counted

NAME = "check"
HELP = "check the files of a bulk job by their digests"
USAGE = "%(prog)s FOLDER [--json]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="that embed or score filled; or its URL")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from siglip_jax.jobs.bucket import BucketPath, folder_at
    from siglip_jax.jobs.checked import damage
    from siglip_jax.jobs.ledger import read_entries
    from siglip_jax.jobs.manifest import read_manifest

    folder = folder_at(args.folder)
    shards = read_manifest(folder).source["shards"]
    entries = read_entries(folder)
    damaged = list(damage(folder, entries, anew=True))
    files = sum(len(entry.files) for entry in entries)
    if args.json:
        told = [{"path": str(one.path), "problem": one.problem} for one in damaged]
        print_json(
            {"folder": str(folder), "shards": shards, "done": len(entries), "files": files}
            | {"damaged": told}
        )
    else:
        advice = "the job's command mends that"
        if isinstance(folder, BucketPath):
            # Which does not read a bucket again unasked.
            advice = "remove it if it is there, and the job's command with --retry mends it"
        for one in damaged:
            print(f"siglip-jax: error: {one}; {advice}", file=sys.stderr)
        good = files - len(damaged)
        some = f"; {len(entries):,} of {counted(shards, 'shard')} are done"
        done = "" if len(entries) == shards else some
        print(f"{folder}: {good:,} of {counted(files, 'file')} are as the job wrote them{done}")
    return 2 if damaged else 0
