"""Check a model, and repeat what has been published for its checkpoint.

Of any model: all weights there, none too many, finite; temperature and bias plausible;
embeddings of bundled images and texts of unit norm; texts padded and ended as they must
be. Of a released one also the numbers that others published, ours beside them: NaFlex
circles, which are drawn; and, of the files in IMAGES, what transformers' tests and
big_vision's notebooks say. Without them it says which files it needs, and from where.

  siglip-jax verify siglip2_b16_naflex
  siglip-jax verify ViT-B-16-SigLIP images/

The exit code is 2 if anything is wrong or differs, 0 otherwise; what cannot be run is
neither.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from siglip_jax.cli.options.checkpoint import add_tower_arguments
from siglip_jax.cli.options.former import add_former
from siglip_jax.cli.options.model import load_model
from siglip_jax.cli.output import add_json_argument, aligned, print_json
from siglip_jax.messages import near_file

if TYPE_CHECKING:
    from siglip_jax.pretrained import Pretrained
    from siglip_jax.verify.report import Outcome, Report

NAME = "verify"
HELP = "check a model, also against published numbers"
USAGE = "%(prog)s MODEL [IMAGES] [--json]"
_VERDICT = {True: "ok", False: "WRONG", None: "not run"}
_ALL, _WORST = 24, 8  # a table with more values shows the worst only


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a checkpoint's name, a file, or a folder")
    parser.add_argument(
        "images", nargs="?", metavar="IMAGES", help="folder of the images of published numbers"
    )
    add_former(parser, "--pictures", "IMAGES, without an option,", metavar="FOLDER", default=None)
    add_tower_arguments(parser)
    parser.add_argument("--vocabulary", metavar="FILE", help="sentencepiece file to use")
    add_json_argument(parser)
    # Published numbers bring their own profile; everything is checked in float32.
    parser.set_defaults(profile=None, res=None, dtype="float32", attention="auto", fsdp=False)


def run(args: argparse.Namespace) -> int:
    if args.images and args.pictures:
        raise ValueError("IMAGES is given twice; leave out --pictures")
    images = args.images or args.pictures
    folder = Path(images).expanduser() if images else None
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{images}: there is no such folder of images{near_file(folder)}")
    model = load_model(args)

    from siglip_jax.verify.report import verify

    report = verify(model, folder)
    if args.json:
        print_json(_plain(model, report))
    else:
        _print(model, report)
    return 0 if report.ok else 2


def _plain(model: "Pretrained", report: "Report") -> dict[str, object]:
    return {
        "model": model.name,
        "checkpoint": model.checkpoint.name if model.checkpoint else None,
        "ok": report.ok,
        "checks": [check._asdict() for check in report.checks],
        "published": [
            {
                "name": outcome.table.name,
                "source": outcome.table.source,
                "profile": outcome.table.profile,
                "tolerance": outcome.table.tolerance,
                "status": outcome.status,
                "missing": list(outcome.missing),
                "values": [
                    {**value._asdict(), "difference": value.difference} for value in outcome.values
                ],
            }
            for outcome in report.outcomes
        ],
    }


def _print(model: "Pretrained", report: "Report") -> None:
    print(aligned([(_VERDICT[check.ok], check.name, check.detail) for check in report.checks]))
    for outcome in report.outcomes:
        print(f"\n{outcome.table.name}: {outcome.table.source}; profile {outcome.table.profile}")
        if outcome.missing:
            print("  not run; needs " + "\n    and ".join(outcome.missing))
            continue
        _print_values(outcome)
    if not report.outcomes:
        what = model.checkpoint.name if model.checkpoint else "a model that is no released one"
        print(f"\nno logits have been published for {what}")
    elif any(outcome.status == "differs" for outcome in report.outcomes):
        print("\nthese weights, or the images, are not those behind the published numbers")


def _print_values(outcome: "Outcome") -> None:
    values = list(outcome.values)
    if len(values) > _ALL:
        print(f"  the {_WORST} worst of {len(values)} values:")
        values = sorted(values, key=lambda value: -value.difference)[:_WORST]
    rows = [("PICTURE", "TEXT", "PUBLISHED", "OURS", "DIFFERENCE")] + [
        (v.picture, v.text, f"{v.published:.4f}", f"{v.ours:.4f}", f"{v.difference:.2g}")
        for v in values
    ]
    print(aligned(rows, "llrrr", "  "))
    print(
        f"  {outcome.status}: largest difference {outcome.largest:.2g}, "
        f"tolerance {outcome.table.tolerance:g}"
    )
