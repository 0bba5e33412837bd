"""Embed images or texts: a few into a .npz file, any number into a folder.

A file FILE.npz holds `zimg` (images, d) and `images` (their paths), or `ztxt` (texts,
d) and `texts`; and `model`, `profile`, `dtype`, `weights`. Rows have unit norm;
a logit is exp(t) times the dot product of two, plus b (both in the file, unless the
model is one tower alone). An image that cannot be read is reported and left out, and
the exit code is 2. With --features the patches of each image, (patches, d), are stored
as `features`, in a file or a job, in the place of its embedding: blocks=-2 after the
last block but one (LLaVA's vision_feature_layer), encoded after the final norm
(PaliGemma).

  siglip-jax embed photos/ --model siglip2_b16_256 --out photos.npz
  siglip-jax embed --texts "a dog" "a cat" --model siglip2_b16_256 --out texts.npz
  siglip-jax embed photos/ --model paligemma/ --features encoded --out patches.npz

Any other --out is the folder of a bulk job: SOURCE is a folder, a pattern, a list,
.csv, .tar or .parquet files, local or remote (gs://, s3://, hf://, https://). It
holds data/00000.parquet ... (key, embedding, width, height, error, and the columns of
the source that --keep names), a ledger of what is done and manifest.json. However it
ends, the same command goes on where it was, and writes what it would have written;
another model, profile or source is refused. With --update a source may have grown or
changed: what is new is embedded, what went is taken out.
SIGTERM and Ctrl-C finish the shard in hand (a second one ends it at once), with exit
code 143 or 130. With --shared the same command may run on many hosts with the folder
in common, each on its own devices; they may be killed, replaced, and come later.
--distributed, or JAX_COORDINATOR_ADDRESS in the environment (with JAX_NUM_PROCESSES
and JAX_PROCESS_ID where jax cannot tell), does the same under jax.distributed, which
ends all processes if one dies; the same command goes on.
OUT may be in a bucket: gs://..., s3://... (pip install gcsfs, s3fs). Processes that
share no disk have a part of the work each, with --part 1/8 to 8/8 or --distributed.
With --engine ray actors of a Ray cluster do the shards, one a chip.

  siglip-jax embed photos/ --model siglip2_b16_256 --out index/
  siglip-jax embed 'gs://bucket/*.tar' --model siglip2_b16_256 --format npy --out index/
"""

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any, Literal

from siglip_jax.cli.image_files import image_files
from siglip_jax.cli.options.data import column_options, refuse_empty
from siglip_jax.cli.options.former import add_former
from siglip_jax.cli.options.job import (
    add_job_arguments,
    refuse_job_arguments,
    run_job,
    shard_size,
)
from siglip_jax.cli.options.model import (
    ModelLoader,
    add_model_arguments,
    batch_sizes,
    describe_run,
    load_model,
)
from siglip_jax.cli.options.program import add_program_argument, saved_program
from siglip_jax.cli.output import add_json_argument
from siglip_jax.config import check_image_output

NAME = "embed"
HELP = "embed images or texts, a few into a file or millions into a folder"
USAGE = (
    "%(prog)s SOURCE... --model MODEL --out FILE.npz|FOLDER [options]\n"
    "       %(prog)s --texts TEXT... --model MODEL --out FILE.npz|FOLDER [options]"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="images, or tables or archives of items",
    )
    what = parser.add_mutually_exclusive_group()
    add_former(what, "--images", "SOURCE, without an option,", nargs="+", default=None)
    what.add_argument("--texts", nargs="+", metavar="TEXT", help="texts to embed, as they are")
    what.add_argument(
        "--texts-file",
        metavar="FILE",
        help="file of texts: lines, JSON, YAML or a table; - for stdin",
    )
    parser.add_argument(
        "--out", required=True, metavar="OUT", help="FILE.npz to write, or the folder of a job"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE.npz if it exists")
    parser.add_argument(
        "--format",
        choices=("parquet", "npy"),
        help="file format in a folder; npy is the layout that clip-retrieval and autofaiss read "
        "(default: parquet)",
    )
    parser.add_argument(
        "--store",
        choices=("float32", "float16", "bfloat16"),
        help="type of the numbers in a folder; bfloat16 is for patches (default: float32)",
    )
    parser.add_argument(
        "--features",
        type=_features,
        dest="layer",
        metavar="LAYER",
        help="pooled for the embedding of each image (the default), or its patches: encoded "
        "(after the final norm), or blocks=N, after N blocks, as the index into hidden_states of "
        "transformers, such as blocks=-2",
    )
    add_former(
        parser,
        "--layer",
        "--features (encoded, or blocks=N)",
        type=_former_layer,
        dest="layer",
    )
    add_json_argument(parser, "how the job ended")
    add_job_arguments(parser)
    add_model_arguments(parser)
    add_program_argument(parser)


def _features(text: str) -> int | str | None:
    """A layer, and None for the embedding."""
    if text in ("encoded", "pooled"):
        return None if text == "pooled" else text
    name, _, number = text.partition("=")
    if name == "blocks":
        with contextlib.suppress(ValueError):
            return int(number)
    raise argparse.ArgumentTypeError(f"expected pooled, encoded or blocks=N, got {text!r}")


def _former_layer(text: str) -> int | str | None:
    return _features("encoded" if text == "final" else f"blocks={text}")


def run(args: argparse.Namespace) -> int:
    if args.layer is not None and args.program is not None:
        raise ValueError("--program computes embeddings; leave it out, or --features")
    given = [name for name in ("sources", "images", "texts", "texts_file") if getattr(args, name)]
    if len(given) != 1:
        raise ValueError("give one of SOURCE, --texts and --texts-file")
    if Path(args.out).suffix == ".npz" and "://" in args.out:
        raise ValueError(f"--out {args.out}: FILE.npz is written to a disk; give a path")
    if Path(args.out).suffix == ".npz":
        return _into_file(args)
    if Path(args.out).suffix in (".txt", ".json", ".csv", ".npy", ".parquet", ".safetensors"):
        raise ValueError(f"--out must end in .npz, or be a folder, got {args.out}")
    if args.force:
        raise ValueError("--force is for FILE.npz; a job in a folder goes on with what is there")
    return run_job(args, lambda **options: _into_folder(args, options))


def _texts(args: argparse.Namespace) -> list[str]:
    from siglip_jax.data.text_list import read_text_list

    refuse_empty("--texts", args.texts or [])
    return args.texts or (read_text_list(args.texts_file) if args.texts_file else [])


def _into_folder(args: argparse.Namespace, options: dict[str, Any]) -> Any:
    from siglip_jax.data import TextStrings, open_items
    from siglip_jax.jobs.job import Job
    from siglip_jax.jobs.run import Options
    from siglip_jax.jobs.run import run as run_in

    texts = _texts(args)
    named = any(source.startswith("texts:") for source in args.sources or ())
    column = args.text_column and not args.image_column
    of_texts = bool(texts or args.texts_file or named or column)
    what: Literal["images", "texts"] = "texts" if of_texts else "images"
    job = Job(
        kind="embed",
        what=what,
        format=args.format or "parquet",
        store=args.store or "float32",
        layer=args.layer,
    )
    if args.texts or args.texts_file:
        if args.keep:
            option = "--texts" if args.texts else "--texts-file"
            raise ValueError(
                f"{option}: texts alone have no columns; leave out --keep, or give a table as "
                "SOURCE with --text-column"
            )
        source = TextStrings(texts, shard_size(args))
    else:
        source = open_items(
            args.sources or args.images,
            **column_options(args),
            keep=args.keep or (),
            only=what,
            shard_size=shard_size(args),
        )
    program = saved_program(args, local=True)
    execution = program and program.execution
    model = ModelLoader(args, images=not of_texts, texts=of_texts, execution=execution)
    return run_in(job, source, args.out, model, Options(**options, program=program))


def _into_file(args: argparse.Namespace) -> int:
    refuse_job_arguments(args, "give a folder as --out, or leave it out")
    for name in ("format", "store", "json"):
        if getattr(args, name):
            raise ValueError(f"--{name} is for bulk jobs; give a folder as --out")
    out = Path(args.out).expanduser()
    if not out.parent.is_dir():
        raise ValueError(f"--out {args.out}: the folder {out.parent} does not exist")
    if not os.access(out.parent, os.W_OK):
        raise ValueError(f"--out {args.out}: the folder {out.parent} cannot be written to")
    if out.is_dir():
        raise ValueError(f"--out {args.out} is a folder")
    if out.exists() and not args.force:
        raise ValueError(f"{args.out} exists already; --force replaces it")
    images = args.sources or args.images
    files = image_files(images) if images else []
    texts = _texts(args)
    if texts and args.layer is not None:
        raise ValueError("--features is for images; leave it out")
    program = saved_program(args)
    model = load_model(
        args, images=bool(files), texts=bool(texts), execution=program and program.execution
    )
    sizes = batch_sizes(args, len(files), len(texts)) | (program.batch_sizes if program else {})
    if files:
        check_image_output(args.layer, model.config, model.name)
        if args.layer is not None and model.config.naflex:
            raise ValueError(
                f"{model.name} is a NaFlex model, whose images differ in their number of patches; "
                "give a folder as --out"
            )
    scorer = model.scorer(tokenizer=bool(texts), **sizes)
    if program:
        program.start(scorer)
    arrays: dict[str, Any] = describe_run(args, model)
    # One tower alone has neither, and its rows make no logits.
    arrays |= {name: scorer.params[name] for name in ("t", "b") if name in scorer.params}
    errors: list[dict[str, str]] = []
    if files:
        from siglip_jax.cli.embedding import embed_files

        name = "zimg" if args.layer is None else "features"
        arrays[name], good, errors = embed_files(scorer, files, layer=args.layer)
        if not good:  # each is reported already
            return 2
        arrays["images"] = good
    else:
        from siglip_jax.cli.embedding import embed_texts

        arrays["ztxt"], arrays["texts"] = embed_texts(scorer, texts), texts

    import numpy as np

    from siglip_jax.weights.staging import staged

    with staged(out) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
    return 2 if errors else 0
