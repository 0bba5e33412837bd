"""Search in embeddings: the images or texts nearest to a text or an image, exactly.

INDEX is a folder that `siglip-jax embed` filled. A QUERY that ends as image files do
(.jpg, .png, ...) is an image, any other a text. The model is the one that the folder was
filled with; its weights are compared with those first.

  siglip-jax embed photos/ --model siglip2_b16_256 --out index/
  siglip-jax search index/ "a dog on a beach" --top 20 --sheet hits.html
  siglip-jax search index/ "a dog" --threshold 0.1
  siglip-jax search index/ "a dog" --not "a cat"
  siglip-jax search index/ query.jpg "in the snow" --combine --json
  siglip-jax search index/ --duplicates 0.95 --sheet groups.html
  siglip-jax search index/ --export faiss:photos.faiss

Prints a table for a person, tab-separated lines into a pipe, JSON with --json.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from siglip_jax.activity import activity
from siglip_jax.cli.advice import spoken
from siglip_jax.cli.options.calibration import (
    about,
    add_calibration_arguments,
    described,
    is_rule,
    number_or_rule,
    opened_calibration,
)
from siglip_jax.cli.options.data import refuse_empty
from siglip_jax.cli.options.former import add_former
from siglip_jax.cli.options.model import (
    PROFILES,
    add_model_arguments,
    available_mesh,
    describe_run,
    load_model,
    opened_model,
    positive,
)
from siglip_jax.cli.output import add_json_argument, printable
from siglip_jax.cli.search_queries import (
    check_calibrated,
    check_options,
    rows_of,
    searches,
    sorted_queries,
)
from siglip_jax.errors import ModelError
from siglip_jax.messages import choose, counted

if TYPE_CHECKING:
    from siglip_jax.calibration import Calibration
    from siglip_jax.cli.search_output import Result
    from siglip_jax.pretrained import Pretrained
    from siglip_jax.search import Embeddings

NAME = "search"
HELP = "find the images or texts nearest to a text or image"
USAGE = "%(prog)s INDEX [QUERY...] [options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", metavar="INDEX", help="folder of embeddings to search in")
    parser.add_argument("queries", nargs="*", metavar="QUERY", help="text or image to search for")
    add_former(parser, "--image", "QUERY, without an option,", nargs="+", default=[])
    parser.add_argument(
        "--also", nargs="+", default=[], metavar="INDEX", help="more folders of the same model"
    )
    parser.add_argument("--top", type=positive, metavar="K", help="how many to find (default: 10)")
    add_calibration_arguments(parser, "leave out what does not reach it")
    parser.add_argument(
        "--not",
        dest="unwanted",
        nargs="+",
        default=[],
        metavar="QUERY",
        help="rank by similarity with each QUERY less the mean of those with these",
    )
    parser.add_argument(
        "--combine",
        action="store_true",
        help="search for all QUERYs as one: by the mean of their similarities",
    )
    parser.add_argument(
        "--duplicates",
        type=_between,
        metavar="S",
        help="instead of a QUERY: groups of what is as similar to each other as this (0.95)",
    )
    add_json_argument(parser)
    parser.add_argument("--sheet", metavar="FILE", help="write the images found, as .png or .html")
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="IMAGES",
        help="for --sheet: the source of the images, if they are no longer where the job read them",
    )
    parser.add_argument(
        "--export",
        metavar="FORMAT:FILE",
        help="write the embeddings for faiss, usearch or npy, and FILE.keys.txt; or as a table "
        "for lance, with the other columns, to a folder or a bucket",
    )
    parser.add_argument(
        "--unfinished", action="store_true", help="search what there is of an unfinished job"
    )
    add_model_arguments(parser)
    parser.set_defaults(profile=None)


def _between(text: str) -> float:
    """argparse type of a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def run(args: argparse.Namespace) -> int:
    refuse_empty("QUERY", args.queries)
    refuse_empty("--not", args.unwanted)
    texts, images = sorted_queries(args.queries)
    queries = [*texts, *images, *args.image]
    calibration = opened_calibration(args)
    check_options(args, queries)
    form, _, target = (args.export or "").partition(":")
    if args.export:
        from siglip_jax.search.export import FORMATS

        if not target:
            raise ValueError(
                f"--export: expected FORMAT:FILE, such as faiss:x.faiss, got {args.export}"
            )
        choose("--export: the format", form, FORMATS)
    if args.sheet:
        from siglip_jax.search.sheet import check_sheet

        check_sheet(Path(args.sheet).expanduser())
    no_texts, no_images = sorted_queries(args.unwanted)
    args.texts = list(dict.fromkeys([*texts, *no_texts]))
    args.image = list(dict.fromkeys([*images, *args.image, *no_images]))

    from siglip_jax.search import open_embeddings

    with activity(f"opening {args.index}"):
        embeddings = open_embeddings([args.index, *args.also], unfinished=args.unfinished)
    if args.export:
        from siglip_jax.jobs.bucket import folder_at
        from siglip_jax.search.export import export

        with activity(f"writing {target}"):
            count = export(embeddings, form, folder_at(target))
        print(f"siglip-jax: {counted(count, 'row')} in {target}", file=sys.stderr)
    if args.duplicates is not None:
        _duplicates(args, embeddings)
    if queries:
        _search(args, queries, embeddings, calibration)
    return 0


def _search(
    args: argparse.Namespace,
    queries: list[str],
    embeddings: "Embeddings",
    calibration: "Calibration | None",
) -> None:
    from siglip_jax.cli.search_output import (
        Result,
        add_kept,
        calibrate_hits,
        plain_hit,
        print_results,
        write_results_sheet,
    )
    from siglip_jax.search import Searcher

    asked = searches(args, queries)
    if calibration is not None:
        with about(args):
            check_calibrated(args, calibration, embeddings)
    if args.threshold is not None:
        kinds = {"texts" if "text" in each.about else "images" for each in asked}
        if embeddings.what in kinds:
            raise ValueError(
                f"--threshold: a probability is of an image with a text; {args.index} holds "
                f"{embeddings.what}, and so is a QUERY"
            )
    model = _model(args, embeddings)
    if calibration is not None:
        with about(args):
            calibration.check(model=model, labels=calibration.labels)
    top = args.top or 10
    rows = rows_of(args, model, asked)
    with activity("searching"):
        found = Searcher(embeddings, mesh=available_mesh())(rows, top)
    number = args.threshold and number_or_rule(args.threshold, calibration)
    results: list[Result] = []
    for each, hits in zip(asked, found, strict=True):
        kind = {"text": "texts", "image": "images"}.get(next(iter(each.about)))
        scored = kind not in (None, embeddings.what) and not args.unwanted
        plain = [plain_hit(hit, embeddings, scored, args.images) for hit in hits]
        limit = number
        if calibration is not None:
            own = calibrate_hits(calibration, each.title, plain)
            limit = own if args.threshold is not None else None
        result = Result(each.title, each.about, hits, plain)
        results.append(result if limit is None else _above(args, embeddings, result, limit))
    if args.sheet:
        with activity(f"writing {args.sheet}"):
            write_results_sheet(args, embeddings, results)
    if args.json:
        add_kept(embeddings, results)
    said = {"index": args.index, **describe_run(args, model), **described(args, calibration)}
    print_results(args, said, results)


def _above(
    args: argparse.Namespace, embeddings: "Embeddings", result: "Result", limit: float
) -> "Result":
    """The hits that reach --threshold; what this means for the others is said."""
    both = zip(result.hits, result.plain, strict=True)
    kept = [(hit, plain) for hit, plain in both if plain["probability"] >= limit]
    below = len(result.hits) - len(kept)
    rule = args.threshold if is_rule(args.threshold) else f"{limit:g}"
    said = None
    if not kept and result.plain:
        best = result.plain[0]
        said = (
            f"nothing reaches --threshold {rule}; "
            f"the best is {best['key']} with {best['probability']:.3g}"
        )
    elif below:
        said = (
            f"{below:,} of the {len(result.hits):,} nearest are below --threshold "
            f"{rule} and left out"
        )
    elif len(result.hits) < len(embeddings):
        said = (
            f"all of the {len(result.hits):,} nearest reach --threshold {rule}, and "
            "more may; --top finds them"
        )
    if said:
        print(printable(f"siglip-jax: {result.title}: {said}"), file=sys.stderr)
    hits, plain = ([pair[n] for pair in kept] for n in (0, 1))
    return result._replace(about=result.about | {"left_out": below}, hits=hits, plain=plain)


def _duplicates(args: argparse.Namespace, embeddings: "Embeddings") -> None:
    from siglip_jax.cli.search_output import (
        Result,
        add_kept,
        plain_hit,
        print_groups,
        write_groups_sheet,
    )
    from siglip_jax.search import duplicates

    if not 0 < args.duplicates < 1:
        raise ValueError(
            "--duplicates: expected a similarity between 0 and 1, such as 0.95, got "
            f"{args.duplicates:g}; rounding leaves even copies below 1, and 0.9999 finds them"
        )
    with activity("comparing rows", unit="blocks") as step:
        found = duplicates(embeddings, args.duplicates, progress=step.update)
    groups = [
        Result(
            f"group {number}: {len(hits):,} {embeddings.what}",
            {},
            hits,
            [plain_hit(hit, embeddings, False, args.images) for hit in hits],
        )
        for number, hits in enumerate(found, 1)
    ]
    rows = sum(len(hits) for hits in found)
    what = f"{len(embeddings):,} {embeddings.what}"
    print(
        f"siglip-jax: {rows:,} of {what} are in {len(groups):,} group{'s' * (len(groups) != 1)} of "
        f"similarity {args.duplicates:g} or more"
        if groups
        else f"siglip-jax: no two of {what} have a similarity of {args.duplicates:g} or more",
        file=sys.stderr,
    )
    if args.sheet:
        with activity(f"writing {args.sheet}"):
            write_groups_sheet(args, embeddings, groups)
    if args.json:
        add_kept(embeddings, groups)
    print_groups(args, {"index": args.index, "duplicates": args.duplicates}, groups)


def _model(args: argparse.Namespace, embeddings: "Embeddings") -> "Pretrained":
    """The model of the index.

    Raises:
      ValueError: if it cannot be found by its name, or is another.
    """
    from siglip_jax.jobs.space import other_than

    manifest = embeddings.manifests[0]
    asked = args.model
    args.model = asked or manifest.model
    made = manifest.space["profile"]["name"]
    # What the job was asked for beside a profile is part of its name.
    args.exif = args.exif or "+exif" in made
    args.fast_decode = args.fast_decode or "+draft" in made
    try:
        # What is chosen unasked may have that name too, and other settings than a system's.
        base = made.partition("+")[0]
        if args.profile is None and base in PROFILES:
            opened = opened_model(args)
            if opened.profile_named().name != base:
                args.profile = opened.profile_named(base)
        model = load_model(
            args, images=bool(args.image), texts=bool(args.texts), what="these queries"
        )
    except ValueError as error:
        if asked or "opened" in args:
            raise  # it is there, and something else is wrong with it
        reason = spoken(error, args.options) if isinstance(error, ModelError) else error
        raise ValueError(
            f"{args.index} was made with {manifest.model}: {reason}; say where it is with --model"
        ) from error
    if wrong := other_than(model, manifest.space):
        raise ValueError(
            f"{args.index} was made with {manifest.model}, profile {made}, and this is another "
            f"model: its {' and '.join(wrong)} {'differ' if len(wrong) > 1 else 'differs'}; "
            "give --model, --profile and --res as the job was given them, or embed anew"
        )
    return model
