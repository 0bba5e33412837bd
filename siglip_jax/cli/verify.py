"""Check a model, and repeat what has been published for its checkpoint.

Of any model: all weights there, none too many, finite; temperature and bias plausible;
embeddings of bundled pictures and texts of length 1; texts padded and ended as they must
be. Of a released one also the numbers that others published, ours beside them: NaFlex
circles, which are drawn; and, of pictures in FOLDER, what transformers' tests and
big_vision's notebooks say. Without them it says which files it needs, and from where.

  siglip-jax verify siglip2_b16_naflex
  siglip-jax verify ViT-B-16-SigLIP --pictures pictures/

The exit code is 2 if anything is wrong or differs, 0 otherwise; what cannot be run is
neither.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from siglip_jax.cli.columns import columns
from siglip_jax.cli.model_arguments import load_model

if TYPE_CHECKING:
    from siglip_jax.pretrained import Pretrained
    from siglip_jax.reference.verify import Outcome, Report

NAME = "verify"
HELP = "a model against itself and against published numbers"
USAGE = "%(prog)s MODEL [--pictures FOLDER] [--json]"
_VERDICT = {True: "ok", False: "WRONG", None: "not run"}
_ALL, _WORST = 24, 8  # a table with more values shows the worst only


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a checkpoint's name, a file, or a folder")
    parser.add_argument("--pictures", metavar="FOLDER", help="where picture files are")
    parser.add_argument("--vocabulary", metavar="FILE", help="sentencepiece file to use")
    parser.add_argument("--json", action="store_true", help="the result for programs")
    # Published numbers bring their own profile; everything is checked in float32.
    parser.set_defaults(
        profile="big_vision", res=None, dtype="float32", attention="auto", fsdp=False
    )


def run(args: argparse.Namespace) -> int:
    folder = Path(args.pictures).expanduser() if args.pictures else None
    if folder is not None and not folder.is_dir():
        raise ValueError(f"--pictures {args.pictures}: there is no such folder")
    model = load_model(args, texts=False)

    from siglip_jax.reference.verify import verify

    report = verify(model, folder)
    if args.json:
        json.dump(_plain(model, report), sys.stdout, indent=1, ensure_ascii=False)
        print()
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
    print(columns([(_VERDICT[check.ok], check.name, check.detail) for check in report.checks]))
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
        print("\nthese weights, or the pictures, are not those behind the published numbers")


def _print_values(outcome: "Outcome") -> None:
    values = list(outcome.values)
    if len(values) > _ALL:
        print(f"  the {_WORST} worst of {len(values)} values:")
        values = sorted(values, key=lambda value: -value.difference)[:_WORST]
    rows = [("PICTURE", "TEXT", "PUBLISHED", "OURS", "DIFFERENCE")] + [
        (v.picture, v.text, f"{v.published:.4f}", f"{v.ours:.4f}", f"{v.difference:.2g}")
        for v in values
    ]
    print(columns(rows, "llrrr", "  "))
    print(
        f"  {outcome.status}: largest difference {outcome.largest:.2g}, "
        f"tolerance {outcome.table.tolerance:g}"
    )
