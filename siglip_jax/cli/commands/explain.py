"""Show why an image has the scores it has: which of its patches count, for each label.

  siglip-jax explain photo.jpg --model siglip2_b16_256 --label "a dog" \\
      --label "a cat" --out why.png

Draws the image as the model sees it, a map over its patches for each label, and where
every head of the pooling head looks. Methods:

  integrated_gradients  by pixels, from the image's mean colour to the image: each
                        patch's share of the difference in score; 32 passes or more
  gradient              attention of the pooling head times the gradient of the
                        score by it
  similarity            the score of each patch, as if the head looked at it alone
  attention             where the pooling head looks, whatever the label

OUT ends in .png or .html, a page that needs no other file. Prints, for each label,
its score and the patch that speaks most for it, as tab-separated lines or with --json
the maps too.
"""

import argparse
import csv
import sys
from pathlib import Path

from siglip_jax.activity import activity
from siglip_jax.cli.options.data import refuse_empty
from siglip_jax.cli.options.labels import add_label_arguments
from siglip_jax.cli.options.model import (
    add_model_arguments,
    batch_sizes,
    describe_run,
    load_model,
    positive,
)
from siglip_jax.cli.output import add_json_argument, print_json
from siglip_jax.messages import near_file

NAME = "explain"
HELP = "show which parts of an image its scores come from"
USAGE = "%(prog)s IMAGE --label LABEL ... --out FILE [--model MODEL] [options]"


# Those of siglip_jax.explain, which comes with numpy.
METHODS = ("integrated_gradients", "gradient", "similarity", "attention")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="image file")
    parser.add_argument(
        "--label",
        "--labels",
        dest="labels",
        nargs="+",
        action="extend",
        default=[],
        metavar="LABEL",
        help="text whose score to explain; several may be given",
    )
    add_label_arguments(parser)
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="where the maps are drawn, .png or .html"
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        metavar="NAME",
        help="integrated_gradients (default), gradient, similarity or attention",
    )
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="gradients that integrated_gradients takes (default: 32 to 512, as many as it needs)",
    )
    add_json_argument(parser, "scores and maps")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from siglip_jax.explain.drawing import check_file

    method = args.method or METHODS[0]
    if args.steps and method != "integrated_gradients":
        raise ValueError("--steps is for --method integrated_gradients; leave it out")
    out, image = Path(args.out).expanduser(), Path(args.image).expanduser()
    try:
        check_file(out)
    except ValueError as error:
        raise ValueError(f"--out: {error}") from error
    labels = _labels(args)
    if not image.is_file():
        what = "is a folder; give an image" if image.is_dir() else "no such file"
        raise ValueError(f"{args.image}: {what}{'' if image.is_dir() else near_file(image)}")
    templates = args.template or ["{}"]
    model = load_model(args, images=True, texts=True, what="explanations")
    sizes = batch_sizes(args, 1, len(labels) * len(templates))
    scorer = model.scorer(tokenizer=True, **sizes)
    with activity(f"explaining {args.image}"):
        steps = {"steps": args.steps} if args.steps else {}
        made = scorer.explain(str(image), labels, method=method, templates=templates, **steps)
        made.save(out)
    best = [made.peak(index) for index in range(len(labels))]
    probabilities = made.scores.probabilities[0]
    if args.json:
        about = describe_run(args, model) | {"image": args.image, "out": args.out}
        rows = [
            {
                "label": label,
                "probability": float(probabilities[index]),
                "logit": float(made.logits[index]),
                "peak": list(best[index]),
                "map": made.maps[index].tolist(),
            }
            for index, label in enumerate(labels)
        ]
        heads = None if made.attention is None else made.attention.tolist()
        said = {"method": method, "templates": templates, "grid": list(made.grid)}
        print_json(about | said | {"labels": rows, "attention": heads})
        return 0
    lines = csv.writer(sys.stdout, dialect="excel-tab", lineterminator="\n")
    lines.writerow(["label", "probability", "logit", "row", "column"])
    for label, p, logit, peak in zip(labels, probabilities, made.logits, best, strict=True):
        lines.writerow([label, f"{p:.6g}", f"{logit:.6g}", *peak])
    print(f"siglip-jax: written to {args.out}", file=sys.stderr)
    return 0


def _labels(args: argparse.Namespace) -> list[str]:
    from siglip_jax.data.text_list import read_text_list

    refuse_empty("--label", args.labels)
    labels = [*args.labels, *(read_text_list(args.labels_file) if args.labels_file else [])]
    if not labels:
        raise ValueError("there is no label; give --label or --labels-file")
    return labels
