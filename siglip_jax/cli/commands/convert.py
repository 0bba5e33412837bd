"""Convert a checkpoint into the format of another system, without losing a bit.

SRC is a released checkpoint's name (see siglip-jax list), a file or folder in any of the
formats, or a repository of the Hugging Face hub. FORMAT is one of

  npz           one file, as big_vision releases weights: DST ends in .npz
  tensorstore   what big_vision's training writes: DST-000000000 and DST-LAST
  transformers  a folder for AutoModel and AutoProcessor
  open_clip     a folder for local-dir:
  timm          a folder with the image tower alone
  siglip_jax    a folder of our own, which loads fastest

The output appears whole or not at all, after it was read back and compared with SRC bit
by bit, and with it a certificate, conversion.json: digests of all files and tensors, what
became of each, the architecture. With --compare, and the other system installed, it also
says what that system computes for bundled images and texts: from the same arrays, and
through the processor that lies in DST. Without, it certifies tensors only.

  siglip-jax convert siglip2_b16_256 hf/ --to transformers
  siglip-jax convert google/siglip-base-patch16-224 b16.npz --to npz --compare

Exit code: 0; 1 if --compare finds more than rounding or other token ids; 2 if nothing
was converted.
"""

import argparse
import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip_jax.activity import activity
from siglip_jax.cli.options.checkpoint import (
    add_checkpoint_arguments,
    architecture,
    check_res,
    open_named,
)
from siglip_jax.cli.options.former import add_former
from siglip_jax.cli.output import add_json_argument, print_json
from siglip_jax.messages import did_you_mean

if TYPE_CHECKING:
    from siglip_jax.config import Tower
    from siglip_jax.converters import OpenCheckpoint, PlanStep, Record
    from siglip_jax.preprocessing import Profile

NAME = "convert"
HELP = "convert a checkpoint into another system's format, with a certificate"
USAGE = "%(prog)s SRC DST --to FORMAT [options]"
# Running so few parameters twice takes about as long as importing jax does.
_TINY = 2_000_000
# Of these a few gigabytes are enough, and some seconds.
_MEASURED = 500_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SRC", help="name, file, folder or repository of a checkpoint"
    )
    parser.add_argument("destination", metavar="DST", help="file or folder to write")
    parser.add_argument("--to", required=True, type=_format, metavar="FORMAT", help="see above")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="dtype of what is written (default: as in SRC)",
    )
    parser.add_argument(
        "--no-classifier",
        action="store_false",
        dest="classifier",
        help="of a fine-tune that tells classes apart, the tower alone",
    )
    form = parser.add_mutually_exclusive_group()
    for name, scan, help in (
        ("scan", True, "big_vision's formats: all blocks of a tower stacked"),
        ("loop", False, "big_vision's formats: each block by itself"),
    ):
        form.add_argument(f"--{name}", action="store_const", dest="scan", const=scan, help=help)
    add_checkpoint_arguments(parser)
    for tower in ("image", "text"):
        add_former(parser, f"--{tower}-tower", "--tower", dest="tower", nargs=0, const=tower)
    parser.add_argument(
        "--pad", type=int, choices=(0, 1), help="id that pads texts: 1 as SigLIP, 0 as SigLIP 2"
    )
    parser.add_argument(
        "--vocabulary", metavar="FILE", help="sentencepiece file to write beside the weights"
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="open_clip: tanh GELU in the image tower, in a folder that cannot be moved",
    )
    parser.add_argument("--force", action="store_true", help="replace DST if it exists")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    parser.add_argument("--no-verify", action="store_true", help="do not read the output back")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="compare with the other library and its processor, run on bundled inputs",
    )
    parser.add_argument("--per-layer", action="store_true", help="compare each block's output")
    add_json_argument(parser, "the plan or certificate")


def _format(name: str) -> str:
    from siglip_jax.converters import FORMATS

    if name in FORMATS:
        return name
    hint = did_you_mean(name, FORMATS, otherwise=f"; there are {', '.join(FORMATS)}")
    raise argparse.ArgumentTypeError(f"no format is called {name!r}{hint}")


def run(args: argparse.Namespace) -> int:
    if args.per_layer and not args.compare:
        raise ValueError("--per-layer is about --compare; give both")
    _check_exact(args)
    if args.compare:
        from siglip_jax.verify.library_comparison import require_library

        require_library(args.to)
    with open_named(args.source, architecture(args), args.res, args.tower, args.base) as source:
        check_res(args, source.config)
        return _dry_run(args, source) if args.dry_run else _convert(args, source)


def _check_exact(args: argparse.Namespace) -> None:
    from siglip_jax.converters import FORMATS

    if args.exact and not FORMATS[args.to].has_exact:
        which = " and ".join(name for name, form in FORMATS.items() if form.has_exact)
        raise ValueError(
            f"--exact is for --to {which}; what --to {args.to} writes computes all as it is here"
        )


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "dtype": args.dtype,
        "tower": args.tower,
        "classifier": args.classifier,
        "scan_image": args.scan,
        "scan_text": args.scan,
    }


def _dry_run(args: argparse.Namespace, source: "OpenCheckpoint") -> int:
    import dataclasses

    from siglip_jax.converters import plan
    from siglip_jax.converters.tensors import stored_names

    steps = plan(source, args.to, **_options(args))
    used = {name for step in steps for name in step.sources}
    left = sorted(stored_names(source) - used)
    dropped = {**source.dropped, **dict.fromkeys(left, "not in the tower")}
    if args.json:
        rows = [dataclasses.asdict(step) for step in steps]
        print_json({"plan": rows, "dropped": dropped, "notes": [*source.reports, *source.notes]})
        return 0
    from siglip_jax.cli.conversion_output import print_plan

    print_plan(steps, dropped)
    return 0


def _convert(args: argparse.Namespace, source: "OpenCheckpoint") -> int:
    from siglip_jax.converters import convert, plan
    from siglip_jax.converters.certificate import (
        certificate_path,
        with_findings,
        write_certificate,
    )

    destination = Path(args.destination).expanduser()
    _check_room(destination, plan(source, args.to, **_options(args)))
    vocabulary = args.vocabulary or _downloaded_vocabulary(args, source)
    try:
        with activity("converting", unit="bytes") as step:
            record = convert(
                source,
                destination,
                to=args.to,
                pad=args.pad,
                vocabulary=vocabulary,
                exact=args.exact,
                verify=not args.no_verify,
                force=args.force,
                progress=step.update,
                **_options(args),
            )
    except (OSError, ValueError) as error:
        if not _disk_is_full(error):
            raise
        raise ValueError(f"the disk is full; nothing was written to {args.destination}") from error
    path = certificate_path(destination, args.to)
    certificate = json.loads(path.read_text("utf-8"))
    added = _run_it(args, destination, record, _target_profile(args, source, vocabulary))
    if added:
        certificate = with_findings(certificate, added)
        write_certificate(path, certificate)
    if args.json:
        print_json(certificate)
    else:
        from siglip_jax.cli.conversion_output import print_certificate

        print_certificate(certificate, path, destination)
    return 0 if _agrees(certificate.get("comparison")) else 1


def _agrees(comparison: dict[str, Any] | None) -> bool:
    # Not pixels: no other library resizes as big_vision does. The certificate says how far.
    processor = (comparison or {}).get("processor") or {}
    wrong = processor.get("error") or processor.get("other_ids")
    return comparison is None or (comparison["agrees"] and not wrong)


def _target_profile(
    args: argparse.Namespace, source: "OpenCheckpoint", vocabulary: str | Path | None
) -> "Profile | None":
    """What the folder's own processor should do; None where nothing is compared."""
    from siglip_jax.converters.target_profile import target_profile

    if not args.compare:
        return None
    file = vocabulary or source.vocabulary
    return target_profile(
        source,
        args.to,
        tower=args.tower or source.tower,
        pad=args.pad,
        vocabulary=Path(file) if file and args.tower != "image" else None,
    )


def _disk_is_full(error: Exception) -> bool:
    # tensorstore raises a ValueError and has the number in its text.
    number = getattr(error, "errno", None)
    return number == errno.ENOSPC or f"os_error_code='{errno.ENOSPC}'" in str(error)


def _check_room(destination: Path, steps: "list[PlanStep]") -> None:
    """Before anything is written: filling a disk takes minutes and disturbs others."""
    import math
    import shutil

    import numpy as np

    if destination.parent.is_dir():
        need = sum(math.prod(step.shape) * np.dtype(step.dtype).itemsize for step in steps)
        free = shutil.disk_usage(destination.parent).free
        if need > free:
            raise ValueError(f"{need:,} bytes do not fit on the disk, {free:,} are free")


def _downloaded_vocabulary(args: argparse.Namespace, source: "OpenCheckpoint") -> Path | None:
    """The released vocabulary of the model, where one is to be written and none lies beside it.

    Without one `convert` says so in a note: weights alone are of use too.
    """
    from siglip_jax.converters import FORMATS
    from siglip_jax.converters.checkpoint import released_vocabulary
    from siglip_jax.fetch import fetch_vocabulary

    form = FORMATS[args.to]
    if not form.vocabulary or args.tower == "image" or source.vocabulary is not None:
        return None
    known = released_vocabulary(source.config)
    try:
        return fetch_vocabulary(known) if known else None
    except ValueError:
        return None


def _run_it(
    args: argparse.Namespace,
    destination: Path,
    record: "Record",
    profile: "Profile | None",
) -> dict[str, Any]:
    """What is found by running what was written, for the certificate."""
    from siglip_jax.converters import FORMATS
    from siglip_jax.converters.certificate import without_folders
    from siglip_jax.verify.library_comparison import compare

    form, added = FORMATS[args.to], dict[str, Any]()
    config = record.config.only(record.tower)
    exact = form.written_gelu(config, args.exact)
    if form.config is not None:
        with activity("measuring what GELU changes"):
            added |= _gelu(args, destination, record, exact)
    if args.compare:
        try:
            with activity(f"comparing with {args.to}"):
                made = compare(
                    destination, args.to, per_layer=args.per_layer, exact=exact, profile=profile
                )
        except ValueError as error:
            made = {"agrees": False, "error": str(error)}
        for part in (made, made.get("processor", {})):
            if "error" in part:
                part["error"] = without_folders(part["error"], destination)
        added["comparison"] = made
    return added


def _gelu(
    args: argparse.Namespace, destination: Path, record: "Record", exact: "tuple[Tower, ...]"
) -> dict[str, Any]:
    """Where that system computes the exact GELU: in what was written, and in its own models."""
    from siglip_jax.converters import FORMATS, open_checkpoint
    from siglip_jax.verify.library_comparison import exact_gelu_effect

    added: dict[str, Any] = {}
    notes: list[str] = []
    with open_checkpoint(destination) as written:
        pad = written.pad if args.pad is None else args.pad
        stock = FORMATS[args.to].exact_gelu(written.config, pad)
        if exact:
            # It is in what was written, so that it is always measured, but of what no machine
            # that only converts has the memory for.
            known = args.compare or record.parameters <= _MEASURED
            effect = exact_gelu_effect(written, args.to, exact) if known else None
            added["written_gelu"] = {"exact_in": list(exact), "largest_difference": effect}
            notes.append(_written_note(args.to, exact, effect))
        left: tuple[Tower, ...] = tuple(tower for tower in stock if tower not in exact)
        if left:
            known = args.compare or record.parameters <= _TINY
            effect = exact_gelu_effect(written, args.to, left) if known else None
            added["stock_gelu"] = {"exact_in": list(left), "largest_difference": effect}
            notes.append(_stock_note(args.to, left, effect))
    return {**added, "notes": notes} if notes else {}


def _moved(effect: dict[str, float]) -> str:
    words = {"image": "image embeddings", "text": "text embeddings", "logits": "logits"}
    return ", ".join(f"{words[name]} {value:.1e}" for name, value in effect.items())


def _written_note(to: str, towers: "tuple[Tower, ...]", effect: dict[str, float] | None) -> str:
    where = f"with the exact GELU in the {' and '.join(towers)} tower"
    if effect is None:
        return f"how far {to} differs {where} was not measured; --compare does"
    return f"measured: {where} the bundled inputs differ by up to {_moved(effect)}"


def _stock_note(to: str, towers: "tuple[Tower, ...]", effect: dict[str, float] | None) -> str:
    said = (
        f"{to}'s own configurations of models like this one compute the exact GELU "
        f"({' and '.join(towers)}); the one written here says tanh, as big_vision does"
    )
    if effect is None:
        return f"{said}; --compare measures the difference"
    return f"{said}: with theirs, the bundled inputs would differ by up to {_moved(effect)}"
