"""Embed images or texts into a .npz file.

The file holds `zimg` (images, d) and `images` (their paths), or `ztxt` (texts, d)
and `texts`; and `model`, `profile`, `dtype`. Rows have length 1; multiply two of
them, by exp(t), and add b (both in the file) for a logit. A picture that cannot be
read is reported and left out, and the exit code is 2.

  siglip-jax embed --model siglip2_b16_256 --images photos/ --out photos.npz
  siglip-jax embed --model siglip2_b16_256 --texts "a dog" "a cat" --out texts.npz
"""

import argparse
import os
from pathlib import Path
from typing import Any

from siglip_jax.cli.model_arguments import (
    add_model_arguments,
    batch_sizes,
    describe_run,
    load_model,
    read_lines,
)
from siglip_jax.cli.picture_files import picture_files

NAME = "embed"
HELP = "images or texts into a .npz file"
USAGE = (
    "%(prog)s --images IMAGES... --model MODEL --out FILE.npz [options]\n"
    "       %(prog)s --texts TEXT... --model MODEL --out FILE.npz [options]"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--images", nargs="+", metavar="IMAGES", help="files, folders, patterns, -")
    what.add_argument("--texts", nargs="+", metavar="TEXT", help="taken as they are")
    what.add_argument("--texts-file", metavar="FILE", help="one text a line, - for stdin")
    parser.add_argument("--out", required=True, metavar="FILE.npz", help="file to write")
    parser.add_argument("--force", action="store_true", help="replace FILE.npz if it exists")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    out = Path(args.out).expanduser()
    if out.suffix != ".npz":
        raise ValueError(f"--out must end in .npz, got {args.out}")
    if not out.parent.is_dir():
        raise ValueError(f"--out {args.out}: the folder {out.parent} does not exist")
    if not os.access(out.parent, os.W_OK):
        raise ValueError(f"--out {args.out}: the folder {out.parent} cannot be written to")
    if out.is_dir():
        raise ValueError(f"--out {args.out} is a folder")
    if out.exists() and not args.force:
        raise ValueError(f"{args.out} exists already; --force replaces it")
    files = picture_files(args.images) if args.images else []
    texts = args.texts or (read_lines(args.texts_file) if args.texts_file else [])
    if not files and not texts:
        raise ValueError(f"{args.texts_file}: expected one text a line, got none")

    model = load_model(args, texts=bool(texts))
    sizes = batch_sizes(args, len(files), len(texts))
    scorer = model.scorer(tokenizer=bool(texts), **sizes)
    arrays: dict[str, Any] = describe_run(args, model)
    arrays |= {name: scorer.params[name] for name in ("t", "b")}
    errors: dict[str, str] = {}
    if files:
        from siglip_jax.cli.embedding import embed_files

        arrays["zimg"], good, errors = embed_files(scorer, files)
        if not good:  # each is reported already
            return 2
        arrays["images"] = good
    else:
        arrays["ztxt"], arrays["texts"] = scorer.embed_texts(texts), texts

    import numpy as np

    from siglip_jax.weights.staging import staged

    with staged(out) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
    return 2 if errors else 0
