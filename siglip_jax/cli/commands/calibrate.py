"""Fit what makes probabilities of a model's logits, for a set of labels.

DATA without labels is enough to say how many labels fit an image, on average:

  siglip-jax calibrate photos/ --model siglip2_b16_256 --labels-file labels.txt \\
      --expect 1 --out labels.json

With labels (a table with columns of files and labels, a row for each label of an image; a
folder with captions; all that `siglip-jax evaluate` reads) it fits a scale and a bias, and
thresholds that keep a promise. Labels that an image is not given do not fit it.

  siglip-jax calibrate labelled.csv --model siglip2_b16_256 --labels-file labels.txt \\
      --threshold precision=0.95 --threshold f1 --out labels.json --report labels.html

With images that no label fits, thresholds that few of these reach:

  siglip-jax calibrate other/ --model siglip2_b16_256 --labels-file labels.txt \\
      --negatives --threshold fpr=0.01 --out labels.json

OUT names the model, its preprocessing, the labels and the templates; `siglip-jax score` and
`search` take it as --calibration, and refuse it for any other. Prints how good the
probabilities are before and after: on labelled images by cross-validation.
"""

import argparse
import itertools
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip_jax.activity import activity
from siglip_jax.cli.calibration_output import print_report
from siglip_jax.cli.options.data import add_data_arguments, column_options, max_error_share
from siglip_jax.cli.options.labels import add_label_arguments
from siglip_jax.cli.options.model import (
    add_model_arguments,
    batch_sizes,
    describe_run,
    load_model,
)
from siglip_jax.cli.output import add_json_argument, print_json
from siglip_jax.data.failures import SettingError
from siglip_jax.messages import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from siglip_jax.data.item import Item

NAME = "calibrate"
HELP = "fit probabilities that mean something to images of your own"
USAGE = "%(prog)s DATA --labels-file FILE --out FILE [--model MODEL] [options]"
# Of siglip_jax.calibration, which takes NumPy to import.
METHODS = ("none", "expect", "bias", "platt", "isotonic", "softmax")
_FIGURES = (".html", ".png")
# What columns of tables of labels are called, beside the usual names of captions.
_COLUMNS = {"image_column": "file", "text_column": "label"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="images, with or without their labels")
    add_label_arguments(parser, required=True)
    parser.add_argument(
        "--out", required=True, metavar="FILE.json", help="where the calibration is written"
    )
    group = parser.add_argument_group("what is fitted")
    group.add_argument(
        "--expect",
        type=_labels_an_image,
        metavar="N",
        help="labels that fit an image, on average; DATA needs no labels then",
    )
    group.add_argument(
        "--method",
        choices=METHODS,
        help="a bias that needs no labels, the likeliest bias, scale and bias, curve, or softmax, "
        "which means something else; none for thresholds only (default: platt, or expect with "
        "--expect)",
    )
    group.add_argument(
        "--per-label",
        action="store_true",
        help="with --method bias: one for each label, drawn to that of all",
    )
    group.add_argument(
        "--negatives", action="store_true", help="no label fits any image of DATA; for fpr=RATE"
    )
    group.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="RULE",
        help="f1, precision=P, recall=R or fpr=RATE; several may be given, the first is chosen "
        "where none is asked for",
    )
    parser.add_argument(
        "--report", metavar="FILE", help="write figures of the calibration, as .html or .png"
    )
    add_json_argument(parser, "the report")
    add_data_arguments(parser)
    add_model_arguments(parser)


def _labels_an_image(text: str) -> float:
    """argparse type of how many labels fit an image."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"expected how many labels fit an image, above 0, such as 1 or 2.5, got {text!r}"
        )
    return value


def run(args: argparse.Namespace) -> int:
    from siglip_jax.calibration import calibrate, measure, targets_of
    from siglip_jax.calibration.thresholds import rule_named
    from siglip_jax.data.text_list import read_text_list
    from siglip_jax.scoring.prompts import check_templates

    method = _method(args)
    for rule in args.threshold:
        rule_named(rule)
    for option in ("out", "report"):
        _check_target(option, getattr(args, option))
    if args.report:
        from siglip_jax.calibration.figures import check_figures

        check_figures(Path(args.report))
    templates = check_templates(args.template or ["{}"])
    labels = read_text_list(args.labels_file)
    expect = 1.0 if args.expect is None else args.expect
    if method == "expect" and expect >= len(labels):
        raise ValueError(
            f"--expect {expect:g}: not all labels fit every image, and {args.labels_file} has "
            f"{counted(len(labels), 'label')}; give fewer than that"
        )
    labelled = method not in ("expect", "none") or (method == "none" and not args.negatives)
    with activity(f"reading {args.data}"):
        items, right, total = _data(args, labelled)
    targets: Any = None
    if right is not None:
        try:
            targets = targets_of(right, labels)
        except ValueError as error:
            raise ValueError(f"{args.labels_file}: {error}") from error

    model = load_model(args, images=True, texts=True)
    sizes = batch_sizes(args, total or 32, len(labels) * len(templates))
    scorer = model.scorer(tokenizer=True, **sizes)

    from siglip_jax.cli.embedding import embed_images
    from siglip_jax.data import ErrorShare
    from siglip_jax.scoring import Scores

    ztxt = scorer.embed_labels(labels, templates)
    zimg, good, errors = embed_images(scorer, items, total)
    total = len(good) + len(errors)
    if not len(good):
        raise ValueError(f"{args.data}: none of the {total:,} images can be read")
    unreadable = ErrorShare(max_error_share(args), what="images")
    for error in errors:
        unreadable.add(error["image"], error["error"])
    if unreadable.exceeded(total):
        raise unreadable.error(total)
    scores = Scores(scorer.logits(zimg, ztxt), tuple(labels))
    if args.negatives:
        targets = scores.logits < -1e30  # none
    elif targets is not None:
        targets = targets[good]
    with activity("fitting"):
        made = calibrate(
            scores,
            targets,
            model=model,
            method=method,
            expect=expect,
            per_label=args.per_label,
            thresholds=args.threshold,
            templates=templates,
        )
        found = measure(made, scores, targets)
    made.save(Path(args.out).expanduser())
    if args.report:
        from siglip_jax.calibration.figures import write_figures

        with activity(f"writing {args.report}"):
            write_figures(made, found, Path(args.report).expanduser())
    if args.json:
        about = describe_run(args, model) | {"data": args.data, "out": args.out}
        print_json(about | {"method": method, **found.describe(), "errors": errors})
    else:
        print_report(made, found)
        print(f"siglip-jax: written to {args.out}", file=sys.stderr)
    return 0


def _method(args: argparse.Namespace) -> Any:
    """The method that the options ask for.

    Raises:
      ValueError: if they do not go together.
    """
    if args.negatives:
        if args.expect is not None or args.method not in (None, "none"):
            raise ValueError(
                "--negatives: images that no label fits give thresholds only; leave out "
                f"{'--expect' if args.expect is not None else '--method'}"
            )
        if not args.threshold:
            raise ValueError("--negatives needs a --threshold, such as fpr=0.01")
        return "none"
    if args.expect is not None and args.method not in (None, "expect"):
        raise ValueError(f"--expect is for the method expect, not for {args.method}; leave it out")
    method = args.method or ("expect" if args.expect is not None else "platt")
    if method == "expect" and args.threshold:
        raise ValueError(
            "--threshold: the method expect reads no labels; give labelled images and another "
            "method, or a number as --threshold to score"
        )
    if method == "none" and not args.threshold:
        raise ValueError("--method none fits nothing; give a --threshold, such as f1")
    if args.per_label and method != "bias":
        raise ValueError("--per-label is for --method bias")
    return method


def _check_target(option: str, path: str | None) -> None:
    """Refuses a file that cannot be written, before anything is computed."""
    if path is None:
        return
    target, endings = Path(path).expanduser(), (".json",) if option == "out" else _FIGURES
    if target.suffix.lower() not in endings:
        raise ValueError(f"--{option}: expected a name that ends in {' or '.join(endings)}: {path}")
    if not target.parent.is_dir():
        raise ValueError(f"--{option}: the folder {target.parent} does not exist")
    if target.is_dir():
        raise ValueError(f"--{option}: {path} is a folder")


def _data(
    args: argparse.Namespace, labelled: bool
) -> "tuple[Iterable[Item], list[tuple[str, ...]] | None, int]":
    """The images, the labels of each if they are asked for, and how many there are."""
    from siglip_jax.data import captions_of, items_of, open_items

    options: dict[str, Any] = column_options(args)
    if not labelled:
        source = open_items([args.data], **options, only="images")
        shards = source.shards()
        items = itertools.chain.from_iterable(map(source.read, range(len(shards))))
        return items, None, sum(shard.items or 0 for shard in shards)  # of tars no one knows
    pairs = _pairs(args, options)
    right = captions_of(pairs)
    if not right:
        raise ValueError(f"{args.data}: there is no image")
    return items_of(pairs), right, len(right)


def _pairs(args: argparse.Namespace, options: dict[str, Any]) -> Any:
    """DATA as images with labels; a table may call its columns file and label."""
    from siglip_jax.data import open_items, open_pairs

    tried = dict(options)
    first: ValueError | None = None
    for _ in range(3):
        try:
            return open_pairs(args.data, **tried)
        except ValueError as error:
            first = first or error
            setting = error.setting if isinstance(error, SettingError) else ""
            if setting not in _COLUMNS or tried[setting] is not None:
                break
            tried[setting] = _COLUMNS[setting]
    assert first is not None
    try:
        open_items([args.data], **options, only="images")
    except ValueError:
        raise first from None
    said = first.on_command_line() if isinstance(first, SettingError) else str(first)
    raise ValueError(
        f"{said}; images without labels need --expect N: how many labels fit one"
    ) from first
