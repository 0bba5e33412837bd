"""Measure a model on images with captions, by big_vision's definitions.

DATA is a folder of images with captions, a .csv, .tsv or .jsonl, webdataset .tar files,
.parquet files, local or remote (gs://, s3://, hf://, https://), or tfds:NAME:SPLIT. Every
caption of every image takes part in retrieval; in zero-shot classification the first
caption of an image is its class.

  siglip-jax evaluate coco/ --model siglip_b16_224 --task retrieval
  siglip-jax evaluate photos.tar --model siglip_b16_224 --task zeroshot --templates clip_best
  siglip-jax evaluate emoji.parquet --model model/ --task zeroshot --template "{}" --as-written

A suite is many data sets, each in a folder of DATA, and prints ours beside what is published:

  siglip-jax evaluate data/ --suite datacomp --model ViT-B-16-SigLIP --out datacomp/
  siglip-jax evaluate /usr/share --suite offline --only stamps digits

Recall at k is the share of images with a caption of theirs among the k nearest, and of
captions with their image among the k nearest. An image that cannot be read is named on
standard error, counted in the result, and left out with its captions; if more of them
cannot be read than the share of --max-error-share, there is no result, and the exit code
is 2.
"""

import argparse
import warnings
from collections import Counter
from typing import Any

from siglip_jax.activity import activity
from siglip_jax.cli.options.data import add_data_arguments, column_options, max_error_share
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
from siglip_jax.cli.output import add_json_argument, aligned, print_json
from siglip_jax.messages import counted, suggestions

NAME = "evaluate"
HELP = "measure recall or zero-shot accuracy on a dataset"
USAGE = "%(prog)s DATA {--task {retrieval,zeroshot} | --suite NAME} [--model MODEL] [options]"
# The keys of siglip_jax.evaluation.TEMPLATES, which comes with jax.
TEMPLATES = ("clip_paper", "clip_best", "class_name_only")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="images with captions")
    parser.add_argument(
        "--task", choices=("retrieval", "zeroshot"), help="what is measured, on one data set"
    )
    add_data_arguments(parser)
    add_former(parser, "--caption-column", "--text-column", dest="text_column")
    add_json_argument(parser)
    group = parser.add_argument_group("zero-shot classification")
    group.add_argument(
        "--labels-file",
        metavar="FILE",
        help="the classes: lines, JSON, YAML or a table, - for stdin (default: the different first "
        "captions)",
    )
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--templates", choices=TEMPLATES, help="big_vision's lists (default: clip_paper)"
    )
    which.add_argument(
        "--template",
        action="append",
        metavar="TEMPLATE",
        help="text with {} for the class, such as 'a photo of a {}.'; several are averaged",
    )
    group.add_argument(
        "--as-written",
        action="store_true",
        help="keep capitals and punctuation of classes and templates, which big_vision removes",
    )
    add_suite_arguments(parser)
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.suite is not None:
        return run_suite_command(args)
    refuse_suite_arguments(args)
    if args.task is None:
        raise ValueError("say what is measured: --task retrieval or zeroshot, or --suite NAME")
    zero_shot = args.task == "zeroshot"
    for option in ("labels_file", "templates", "template", "as_written"):
        if getattr(args, option) and not zero_shot:
            raise ValueError(f"--{option.replace('_', '-')} is for --task zeroshot")

    from siglip_jax.data import ErrorShare, captions_of, open_pairs

    with activity(f"reading {args.data}"):
        pairs = open_pairs(args.data, **column_options(args))
        captions = captions_of(pairs)
    if not captions:
        raise ValueError(f"{args.data}: there is no image")
    if zero_shot:
        from siglip_jax.evaluation import TEMPLATES
        from siglip_jax.scoring.prompts import check_templates

        templates = check_templates(args.template or TEMPLATES[args.templates or "clip_paper"])
        classes, labels = _classes(args.labels_file, [own[0] for own in captions])
        if not args.as_written:
            _warn_of_merged(classes)
        count = len(classes) * len(templates)
    else:
        count = sum(map(len, captions))
    model = load_model(args, images=True, texts=True, what="recall and accuracy")
    scorer = model.scorer(tokenizer=True, **batch_sizes(args, len(captions), count))

    from siglip_jax.cli.embedding import embed_images, embed_texts
    from siglip_jax.data import items_of

    zimg, good, errors = embed_images(scorer, items_of(pairs), len(pairs))
    if not len(good):
        raise ValueError(f"{args.data}: none of the {len(captions):,} images can be read")
    unreadable = ErrorShare(max_error_share(args), what="images")
    for error in errors:
        unreadable.add(error["image"], error["error"])
    if unreadable.exceeded(len(captions)):
        raise unreadable.error(len(captions))
    result: dict[str, Any] = describe_run(args, model) | {"data": args.data, "task": args.task}
    result["images"] = len(good)
    if zero_shot:
        from siglip_jax.evaluation import class_embeddings, zero_shot_accuracy

        ztxt = class_embeddings(
            lambda texts: embed_texts(scorer, texts),
            classes,
            templates,
            canonical=not args.as_written,
            aliases="none",  # a caption may well hold a comma
        )
        with activity("measuring accuracy"):
            metrics = zero_shot_accuracy(zimg, ztxt, [labels[i] for i in good], mesh=scorer.mesh)
        result |= {"classes": len(classes), "templates": templates, "as_written": args.as_written}
    else:
        from siglip_jax.evaluation import recall

        texts = [text for i in good for text in captions[i]]
        owner = [row for row, i in enumerate(good) for _ in captions[i]]
        ztxt = embed_texts(scorer, texts)
        with activity("measuring recall"):
            metrics = recall(zimg, ztxt, owner, mesh=scorer.mesh)
        result["texts"] = len(texts)
    result |= {"metrics": metrics, "errors": errors}
    if args.json:
        print_json(result)
    else:
        _print(result)
    return 0


def _classes(labels_file: str | None, firsts: list[str]) -> tuple[list[str], list[int]]:
    """The classes, and which one each image is of.

    Raises:
      ValueError: if the file has a class twice, or lacks that of an image.
    """
    if labels_file is None:
        classes = list(dict.fromkeys(firsts))
    else:
        from siglip_jax.data.text_list import read_text_list

        classes = read_text_list(labels_file)
        twice = [name for name, count in Counter(classes).items() if count > 1]
        if twice:
            raise ValueError(f"{labels_file}: the class {twice[0]!r} is there twice")
    index = {name: i for i, name in enumerate(classes)}
    missing = [name for name in firsts if name not in index]
    if missing:
        near = suggestions(missing[0], classes)
        raise ValueError(
            f"{labels_file}: {len(missing):,} of {len(firsts):,} images are of a class that "
            f"is not there, such as {missing[0]!r}"
            + (f"; did you mean that by {near[0]!r}?" if near else "")
        )
    return classes, [index[name] for name in firsts]


def _warn_of_merged(classes: list[str]) -> None:
    from siglip_jax.evaluation import canonicalize

    merged = [name for name, n in Counter(map(canonicalize, classes)).items() if n > 1]
    if merged:
        warnings.warn(
            f"{len(merged):,} names stand for several classes once capitals and punctuation are "
            f"removed, such as {merged[0]!r}; --as-written keeps these apart",
            stacklevel=2,
        )


def _print(result: dict[str, Any]) -> None:
    metrics = result["metrics"]
    if result["task"] == "zeroshot":
        templates = len(result["templates"])
        spoken = f"{templates} templates" if templates > 1 else repr(result["templates"][0])
        print(f"{_images(result)}, {counted(result['classes'], 'class', 'classes')}, {spoken}")
        names = {"accuracy": "accuracy", "top5_accuracy": "right among 5"}
        rows = [(name, f"{metrics[key]:.2%}") for key, name in names.items()]
        print(aligned(rows, "lr"))
        return
    print(f"{_images(result)}, {counted(result['texts'], 'caption')}")
    ks = list(dict.fromkeys(int(name.partition("@")[2]) for name in metrics))
    table = [("recall", *(f"@{k}" for k in ks))]
    for key, name in (("img2txt", "image to caption"), ("txt2img", "caption to image")):
        table.append((name, *(f"{metrics[f'{key}_recall@{k}']:.2%}" for k in ks)))
    print(aligned(table, "l" + "r" * len(ks)))


def _images(result: dict[str, Any]) -> str:
    bad = f" ({len(result['errors']):,} more cannot be read)" if result["errors"] else ""
    return f"{counted(result['images'], 'image')}{bad}"
