"""Score images against labels: the probability that each label fits each image.

IMAGES are files, folders (searched to the bottom), patterns in quotes, or - for one
path a line on standard input. Labels do not compete: probabilities of an image do not
sum to one.

  siglip-jax score --model ViT-B-16-SigLIP photo.jpg --labels "a dog" "a cat"

Of a fine-tune that was trained to tell classes apart, without labels, the model's own
classes are scored, with probabilities as it was trained (they may sum to one).

Prints a table for a person, tab-separated lines into a pipe, JSON with --json. An
image that cannot be read is reported on standard error, the rest is scored, and the
exit code is 2.

With --calibration FILE, which `siglip-jax calibrate` wrote, probabilities mean what
they say; labels and templates are then its own unless given, and have to be. With
--threshold the labels are printed that reach it, and an image of which none does is
none of these.

With --out it is a bulk job: IMAGES may be anything that `siglip-jax embed` takes for
a folder, and OUT holds data/00000.parquet ... (key, labels, probabilities, logits,
width, height, error with --top; without it all probabilities in the order of the
labels). It goes on like an embed job however it was interrupted. There may be a
million labels, with --top. With --pairs each image is scored with its own text, and
there are no labels.

  siglip-jax score 'shards/*.tar' --model siglip2_b16_256 --out scores/ --top 5 \\
      --labels-file captions.txt
"""

import argparse
import csv
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from siglip_jax.cli.image_files import image_files
from siglip_jax.cli.options.calibration import (
    about,
    add_calibration_arguments,
    described,
    number_or_rule,
    opened_calibration,
)
from siglip_jax.cli.options.data import column_options, refuse_empty
from siglip_jax.cli.options.job import (
    add_job_arguments,
    refuse_job_arguments,
    run_job,
    shard_size,
)
from siglip_jax.cli.options.labels import add_label_arguments
from siglip_jax.cli.options.model import (
    QUICK_START_LIMIT,
    ModelLoader,
    add_model_arguments,
    batch_sizes,
    describe_run,
    load_model,
    opened_model,
    positive,
    read_programs,
)
from siglip_jax.cli.options.program import add_program_argument, saved_program
from siglip_jax.cli.output import add_json_argument, print_json, printable, screen

if TYPE_CHECKING:
    from siglip_jax.calibration import Calibration
    from siglip_jax.classifier import Classifier
    from siglip_jax.scoring import LabelScore, Scores

NAME = "score"
HELP = "score images against labels"
USAGE = (
    "%(prog)s IMAGES... --model MODEL --labels LABEL... [options]\n"
    "       %(prog)s SOURCE... --model MODEL --labels-file FILE --out FOLDER\n"
    "       %(prog)s SOURCE... --model MODEL --out FOLDER --pairs [options]"
)
_BAR = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="image files, folders, patterns, or - for a list on stdin",
    )
    parser.add_argument(
        "--labels", nargs="+", default=[], metavar="LABEL", help="texts to score each image against"
    )
    add_label_arguments(parser)
    parser.add_argument(
        "--top", type=positive, metavar="K", help="keep only the K best labels (default: all)"
    )
    add_calibration_arguments(parser, "keep only the labels that reach it, or none of these")
    add_json_argument(parser)
    parser.add_argument(
        "--out", metavar="FOLDER", help="folder of a bulk job (default: none; print the scores)"
    )
    parser.add_argument(
        "--pairs", action="store_true", help="score each image with its own text; needs --out"
    )
    add_job_arguments(parser)
    add_model_arguments(parser)
    add_program_argument(parser)


def run(args: argparse.Namespace) -> int:
    if args.out:
        return run_job(args, lambda **options: _into_folder(args, options))
    refuse_job_arguments(args, "give a folder as --out, or leave it out")
    if args.pairs:
        raise ValueError("--pairs is for bulk jobs; give a folder as --out")
    calibration = opened_calibration(args)
    labels = _labels(args, calibration)
    classifier = _classifier(args, labels)
    if classifier is not None:
        return _classify(args, classifier)
    if not labels:
        raise ValueError("there is no label; give --labels or --labels-file")
    files = image_files(args.images)

    quick_start = len(files) <= QUICK_START_LIMIT
    sizes = batch_sizes(args, len(files), len(labels) * len(args.template or ["{}"]))
    if quick_start and not args.program:
        read_programs(args, {"images": sizes["batch_size"], "texts": sizes["text_batch_size"]})

    from siglip_jax.cli.embedding import embed_files
    from siglip_jax.scoring import Scores
    from siglip_jax.scoring.prompts import check_templates

    templates = check_templates(args.template or ["{}"])
    if calibration is not None:
        with about(args):
            calibration.check_texts(labels, templates)
    program = saved_program(args)
    model = load_model(args, images=True, texts=True, execution=program and program.execution)
    scorer = model.scorer(
        tokenizer=True,
        quick_start=quick_start,
        **sizes | (program.batch_sizes if program else {}),
    )
    if program:
        program.start(scorer)
    # One tower is traced and read while the other computes.
    other = ThreadPoolExecutor(1, "labels")
    try:
        embedded = other.submit(scorer.embed_labels, labels, templates)
        if scorer.mesh.size > 1:
            embedded.result()  # several devices need programs in one order
        zimg, good, errors = embed_files(scorer, files)
        ztxt = embedded.result()
    finally:
        other.shutdown(wait=False, cancel_futures=True)  # an interrupt waits for no compiler
    scores = Scores(scorer.logits(zimg, ztxt), tuple(labels))
    if calibration is not None:
        with about(args):
            calibration.check(model=model, labels=labels, templates=templates)
        scores = scores.calibrated(calibration)
    said = describe_run(args, model) | described(args, calibration)
    return _print(args, {**said, "templates": templates}, scores, good, errors)


def _classify(args: argparse.Namespace, classifier: "Classifier") -> int:
    """Scores of the model's own classes."""
    if args.template:
        raise ValueError("--template is for --labels; the model's own classes take none")
    files = image_files(args.images)

    from siglip_jax.cli.embedding import embed_files
    from siglip_jax.scoring import Scores

    model = load_model(args, images=True)
    scorer = model.scorer(tokenizer=False, **batch_sizes(args, len(files), 0))
    logits, good, errors = embed_files(scorer, files, classes=True)
    scores = Scores(logits, classifier.labels, classifier.activation)
    said = describe_run(args, model) | described(args, None)
    return _print(args, {**said, "classifier": classifier.activation}, scores, good, errors)


def _print(
    args: argparse.Namespace,
    said: dict[str, Any],
    scores: "Scores",
    good: list[str],
    errors: list[dict[str, str]],
) -> int:
    hits = scores.top(args.top)
    if args.threshold is not None:
        limit = number_or_rule(args.threshold, scores.calibration)
        hits = [own[: args.top] for own in scores.accepted(limit)]
    ranked = list(zip(good, hits, strict=True))
    if args.json:
        results = [{"image": f, "scores": [hit._asdict() for hit in hits]} for f, hits in ranked]
        print_json({**said, "images": results, "errors": errors})
    elif sys.stdout.isatty():
        _print_table(ranked)
    else:
        # A tab or a line break inside a label is quoted.
        lines = csv.writer(sys.stdout, dialect="excel-tab", lineterminator="\n")
        lines.writerow(["image", "label", "probability", "logit"])
        for file, hits in ranked:
            for hit in hits:
                lines.writerow([file, hit.label, f"{hit.probability:.6g}", f"{hit.logit:.6g}"])
            if not hits:  # none of these
                lines.writerow([file, "", "", ""])
    return 2 if errors else 0


def _labels(args: argparse.Namespace, calibration: "Calibration | None") -> list[str]:
    """The labels; where none are given those of the calibration, as its templates are."""
    from siglip_jax.data.text_list import read_text_list

    refuse_empty("--labels", args.labels)
    labels = [*args.labels, *(read_text_list(args.labels_file) if args.labels_file else [])]
    if calibration is not None:
        args.template = args.template or list(calibration.templates)
        return labels or list(calibration.labels)
    return labels


def _classifier(args: argparse.Namespace, labels: list[str]) -> "Classifier | None":
    """The model's own classes, where nothing else is to be scored."""
    if labels or args.pairs or args.program or args.model is None:
        return None
    return opened_model(args).classifier


def _into_folder(args: argparse.Namespace, options: dict[str, Any]) -> Any:
    from siglip_jax.data import open_items
    from siglip_jax.jobs.job import ALL_LABELS, Job
    from siglip_jax.jobs.run import Options
    from siglip_jax.jobs.run import run as run_in

    calibration = opened_calibration(args)
    if args.pairs and (args.calibration or args.threshold):
        option = "--calibration" if args.calibration else "--threshold"
        raise ValueError(f"{option} is for labels; texts of --pairs are all different")
    labels = _labels(args, calibration)
    classifier = _classifier(args, labels)
    if not labels and not args.pairs and classifier is None:
        raise ValueError("there is no label; give --labels, --labels-file or --pairs")
    if classifier is not None and args.template:
        raise ValueError("--template is for --labels; the model's own classes take none")
    names = classifier.labels if classifier is not None else labels
    if args.top is None and len(names) > ALL_LABELS:
        raise ValueError(
            f"{len(names):,} labels are as many numbers an image, more than {ALL_LABELS:,}; "
            "give --top K to store the best of them only"
        )
    if args.top is not None and args.top > len(names) > 0:
        raise ValueError(f"--top {args.top} is more than the {len(names)} labels")
    job = Job(
        kind="score",
        what="pairs" if args.pairs else "images",
        labels=tuple(labels),
        templates=tuple(args.template or ["{}"]),
        top=args.top,
        classifier=classifier,
        calibration=calibration,
        threshold=args.threshold and number_or_rule(args.threshold, calibration),
    )
    source = open_items(
        args.images,
        **column_options(args),
        keep=args.keep or (),
        only="pairs" if args.pairs else "images",
        shard_size=shard_size(args),
    )
    program = saved_program(args, local=True)
    texts = classifier is None
    execution = program and program.execution
    model = ModelLoader(args, images=True, texts=texts, execution=execution)
    return run_in(job, source, args.out, model, Options(**options, program=program))


def _print_table(ranked: "list[tuple[str, list[LabelScore]]]") -> None:
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    console = screen()
    # One width for all images, so that bars can be compared down the screen.
    room = max(console.width - _BAR - len("  100.00%") - 6, 10)
    longest = max((cell_len(hit.label) for _, hits in ranked for hit in hits), default=0)
    width = min(max(longest, len("none of these") * any(not hits for _, hits in ranked)), room)
    for i, (file, hits) in enumerate(ranked):
        if i:
            console.print()
        console.print(Text(printable(file), style="bold"), soft_wrap=True)
        table = Table(show_header=False, box=None, padding=(0, 0, 0, 2))
        table.add_column(width=width, overflow="fold")
        table.add_column(width=_BAR)
        table.add_column(justify="right")
        if not hits:
            table.add_row(Text("none of these", "italic"), "", "")
        for hit in hits:
            table.add_row(
                Text(printable(hit.label)),
                Text(bar(hit.probability), "green"),
                percent(hit.probability),
            )
        console.print(table)


def bar(probability: float, width: int = _BAR) -> str:
    """A bar of blocks, to an eighth of a block.

    >>> bar(0.5, 4), bar(0.3, 4), bar(1.0, 4), bar(0.0001, 4)
    ('██', '█▎', '████', '')
    """
    whole, eighths = divmod(round(probability * width * 8), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()


def percent(probability: float) -> str:
    """A probability as people read it, small ones included.

    >>> percent(0.3194), percent(0.0000326), percent(0.00005), percent(1.0)
    ('31.94%', '0.0033%', '0.0050%', '100.00%')
    """
    value = 100 * probability
    return f"{value:.2f}%" if value >= 0.1 or value == 0 else f"{value:#.2g}%"
