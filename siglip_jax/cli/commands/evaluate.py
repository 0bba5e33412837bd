"""Measure a model on images with captions, as big_vision and CLIP_benchmark do.

DATA is a folder of images with captions, a .csv, .tsv or .jsonl, webdataset .tar files,
.parquet files, local or remote (gs://, s3://, hf://, https://), or tfds:NAME:SPLIT.

  retrieval       recall of an image's captions, and of a caption's image
  multilingual    the same in each language, and the mean over languages
  caption-choice  the first caption of an image against its others
  zeroshot        accuracy, where the first caption of an image is its class
  multilabel      mean average precision: every caption of an image is a class of it
  linear-probe    accuracy of a linear layer that is fitted to the embeddings of --train
  knn             accuracy of a vote of the nearest images of --train
  fewshot         the papers' 10-shot accuracy: 10 images a class of --train

  siglip-jax evaluate coco/ --model siglip_b16_224 --task retrieval
  siglip-jax evaluate de=de.tar fr=fr.tar --model siglip2_b16_224 --task multilingual
  siglip-jax evaluate photos.tar --model siglip_b16_224 --task zeroshot
  siglip-jax evaluate a.parquet --task zeroshot --template "{}" --as-written
  siglip-jax evaluate test/ --train train/ --model siglip_b16_224 --task linear-probe

A suite is many data sets, each in a folder of DATA, and prints ours beside what is published:

  siglip-jax evaluate data/ --suite datacomp --model ViT-B-16-SigLIP --out datacomp/
  siglip-jax evaluate /usr/share --suite offline --only stamps digits

An image that cannot be read is named on standard error, counted in the result, and left
out with its captions; if more cannot be read than the share of --max-error-share,
there is no result, and the exit code is 2.
"""

import argparse
import warnings
from typing import Any

from siglip_jax.activity import activity
from siglip_jax.cli.evaluation_output import print_measured
from siglip_jax.cli.options.data import add_data_arguments, max_error_share
from siglip_jax.cli.options.former import add_former
from siglip_jax.cli.options.model import (
    add_model_arguments,
    batch_sizes,
    describe_run,
    load_model,
)
from siglip_jax.cli.options.suite import (
    add_suite_arguments,
    refuse_suite_arguments,
    run_suite_command,
)
from siglip_jax.cli.options.task import (
    TASKS,
    add_task_arguments,
    check_task_options,
    make_task,
    read_task_data,
)
from siglip_jax.cli.output import add_json_argument, print_json

NAME = "evaluate"
HELP = "measure recall, accuracy or average precision on a dataset"
USAGE = "%(prog)s DATA {--task TASK | --suite NAME} [--model MODEL] [options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="+",
        help="images with captions; several for multilingual, each as LANGUAGE=DATA",
    )
    parser.add_argument("--task", choices=TASKS, metavar="TASK", help=f"one of {', '.join(TASKS)}")
    add_data_arguments(parser)
    add_former(parser, "--caption-column", "--text-column", dest="text_column")
    add_json_argument(parser)
    add_task_arguments(parser)
    add_suite_arguments(parser)
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.suite is not None:
        return run_suite_command(args)
    refuse_suite_arguments(args)
    if args.task is None:
        raise ValueError("say what is measured: --task TASK, or --suite NAME")
    check_task_options(args)
    named = args.data if len(args.data) > 1 else args.data[0]
    spoken = ", ".join(args.data)
    with activity(f"reading {spoken}"):
        data = read_task_data(args)
    task = make_task(args, data)
    # Two of ImageNet's names are there twice as they are published.
    if args.class_names is None and (merged := getattr(task, "merged", list)()):
        warnings.warn(
            f"{len(merged):,} names stand for several classes once capitals and punctuation are "
            f"removed, such as {merged[0]!r}; --as-written keeps these apart",
            stacklevel=2,
        )
    texts = task.text_count > 0
    model = load_model(args, images=True, texts=texts, what="recall and accuracy")
    count = len(data.captions)
    scorer = model.scorer(tokenizer=texts, **batch_sizes(args, count, task.text_count))

    from siglip_jax.cli.embedding import embed_images, embed_texts
    from siglip_jax.data import ErrorShare, items_of
    from siglip_jax.evaluation import Images

    zimg, good, errors = embed_images(scorer, items_of(data.pairs), count)
    if not len(good):
        raise ValueError(f"{spoken}: none of the {count:,} images can be read")
    unreadable = ErrorShare(max_error_share(args), what="images")
    for error in errors:
        unreadable.add(error["image"], error["error"])
    if unreadable.exceeded(count):
        raise unreadable.error(count)
    with activity(f"measuring {args.task}"):
        metrics, facts = task.measure(
            Images(zimg, good), lambda texts: embed_texts(scorer, texts), scorer.mesh
        )
    if metrics.get("tied_groups"):
        warnings.warn(
            f"{metrics['tied_groups']:.1%} of the groups have something as near as what is right, "
            "such as texts that are cut to the same; the first counts as nearest",
            stacklevel=2,
        )
    result: dict[str, Any] = describe_run(args, model) | {"data": named, "task": args.task}
    if args.train is not None:
        result["train"] = args.train
    result |= facts | {"metrics": metrics, "errors": errors}
    if args.json:
        print_json(result)
    else:
        print_measured(result)
    return 0
