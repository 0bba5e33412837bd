"""Search in embeddings: the images or texts nearest to a text or an image, exactly.

INDEX is a folder that `siglip-jax embed` filled. A QUERY that ends as image files do
(.jpg, .png, ...) is an image, any other a text. The model is the one that the folder was
filled with; its weights are compared with those first.

  siglip-jax embed photos/ --model siglip2_b16_256 --out index/
  siglip-jax search index/ "a dog on a beach" --top 20 --sheet hits.html
  siglip-jax search index/ query.jpg --json
  siglip-jax search index/ --export faiss:photos.faiss

Prints a table for a person, tab-separated lines into a pipe, JSON with --json.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip_jax.activity import activity
from siglip_jax.cli.advice import spoken
from siglip_jax.cli.options.data import refuse_empty
from siglip_jax.cli.options.former import add_former
from siglip_jax.cli.options.model import (
    PROFILES,
    QUICK_START_LIMIT,
    add_model_arguments,
    available_mesh,
    batch_sizes,
    describe_run,
    load_model,
    opened_model,
    positive,
)
from siglip_jax.cli.output import add_json_argument, print_json, printable
from siglip_jax.errors import ModelError
from siglip_jax.messages import near_file

if TYPE_CHECKING:
    from siglip_jax.pretrained import Pretrained
    from siglip_jax.search import Embeddings, Hit

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
    parser.add_argument(
        "--top", type=positive, default=10, metavar="K", help="how many to find (default: 10)"
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
        help="write the embeddings for faiss, usearch or npy, and FILE.keys.txt",
    )
    parser.add_argument(
        "--unfinished", action="store_true", help="search what there is of an unfinished job"
    )
    add_model_arguments(parser)
    parser.set_defaults(profile=None)


def run(args: argparse.Namespace) -> int:
    refuse_empty("QUERY", args.queries)
    args.texts, images = _sorted_queries(args.queries)
    args.image = [*images, *args.image]
    if not args.texts and not args.image and not args.export:
        raise ValueError("there is nothing to search for; give a QUERY or --export")
    form, _, target = (args.export or "").partition(":")
    if args.export and not target:
        raise ValueError(
            f"--export: expected FORMAT:FILE, such as faiss:x.faiss, got {args.export}"
        )
    if args.sheet:
        from siglip_jax.search.sheet import check_sheet

        check_sheet(Path(args.sheet).expanduser())

    from siglip_jax.search import Searcher, open_embeddings

    with activity(f"opening {args.index}"):
        embeddings = open_embeddings([args.index, *args.also], unfinished=args.unfinished)
    if args.export:
        from siglip_jax.search.export import export

        with activity(f"writing {target}"):
            count = export(embeddings, form, Path(target).expanduser())
        print(f"siglip-jax: {count:,} rows in {target}", file=sys.stderr)
    if not args.texts and not args.image:
        return 0
    model = _model(args, embeddings)
    queries = _queries(args, model)
    with activity("searching"):
        found = Searcher(embeddings, mesh=available_mesh())(queries, args.top)
    results = [
        {"text" if number < len(args.texts) else "image": query, "hits": hits}
        for number, (query, hits) in enumerate(zip([*args.texts, *args.image], found, strict=True))
    ]
    results = [_plain(result, embeddings) for result in results]
    if args.sheet:
        with activity(f"writing {args.sheet}"):
            _write_sheet(args, embeddings, results, found)
    _print(args, model, results)
    return 0


def _sorted_queries(queries: list[str]) -> tuple[list[str], list[str]]:
    """Texts, and image files.

    Raises:
      ValueError: if an image file does not exist.
    """
    from siglip_jax.data.specs import IMAGES

    images = [query for query in queries if Path(query).suffix.lower() in IMAGES]
    for image in images:
        if not Path(image).expanduser().exists():
            raise ValueError(f"{image}: no such file{near_file(image)}")
    return [query for query in queries if query not in images], images


def _model(args: argparse.Namespace, embeddings: "Embeddings") -> "Pretrained":
    """The model of the index.

    Raises:
      ValueError: if it cannot be found by its name, or is another.
    """
    from siglip_jax.jobs.space import space_of

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
    ours = space_of(model, manifest.space)
    wrong = [n for n in ("weights", "architecture", "profile") if ours[n] != manifest.space[n]]
    if wrong:
        raise ValueError(
            f"{args.index} was made with {manifest.model}, profile {made}, and this is another "
            f"model: its {' and '.join(wrong)} {'differ' if len(wrong) > 1 else 'differs'}; "
            "give --model, --profile and --res as the job was given them, or embed anew"
        )
    return model


def _queries(args: argparse.Namespace, model: "Pretrained") -> Any:
    import numpy as np

    sizes = batch_sizes(args, len(args.image), len(args.texts))
    few = len(args.image) + len(args.texts) <= QUICK_START_LIMIT
    scorer = model.scorer(tokenizer=bool(args.texts), quick_start=few, **sizes)
    parts = []
    if args.texts:
        parts.append(scorer.embed_texts(args.texts))
    if args.image:
        parts.append(scorer.embed_images(args.image))
    return np.concatenate(parts)


def _plain(result: dict[str, Any], embeddings: "Embeddings") -> dict[str, Any]:
    """A result in plain JSON types; probabilities are of an image with a text only."""
    import numpy as np

    from siglip_jax.scoring.scores import sigmoid

    kind = "texts" if "text" in result else "images"
    manifest = embeddings.manifests[0]

    def plain(hit: "Hit") -> dict[str, Any]:
        made: dict[str, Any] = {"key": hit.row.key}
        if hit.row.text is not None:
            made["text"] = hit.row.text
        if len(embeddings.folders) > 1:
            made["index"] = str(embeddings.folders[hit.row.folder])
        made["similarity"] = hit.similarity
        if kind != embeddings.what:
            # A model that embeds the query as well as the index has both towers.
            assert manifest.t is not None and manifest.b is not None
            logit = float(np.exp(manifest.t) * hit.similarity + manifest.b)
            made |= {"logit": logit, "probability": float(sigmoid(np.float32(logit)))}
        return made

    return result | {"hits": [plain(hit) for hit in result["hits"]]}


def _score(hit: dict[str, Any]) -> str:
    from siglip_jax.cli.commands.score import percent

    probability = hit.get("probability")
    spoken = f"  {percent(probability)}" if probability is not None else ""
    return f"{hit['similarity']:.4f}{spoken}"


def _print(args: argparse.Namespace, model: "Pretrained", results: list[dict[str, Any]]) -> None:
    if args.json:
        about = {"index": args.index, **describe_run(args, model)}
        print_json(about | {"queries": results})
        return
    if not sys.stdout.isatty():
        # A tab or a line break inside a key is quoted.
        lines = csv.writer(sys.stdout, dialect="excel-tab", lineterminator="\n")
        lines.writerow(["query", "rank", "key", "similarity", "probability"])
        for result in results:
            query = result.get("text", result.get("image"))
            for rank, hit in enumerate(result["hits"], 1):
                probability = f"{hit['probability']:.6g}" if "probability" in hit else ""
                row = [query, rank, hit["key"], f"{hit['similarity']:.6g}", probability]
                lines.writerow(row)
        return
    from siglip_jax.cli.output import aligned

    for number, result in enumerate(results):
        print(("\n" if number else "") + printable(result.get("text", result.get("image", ""))))
        rows = [
            (f"{rank:>4}", _score(hit), hit["key"], hit.get("text", ""))
            for rank, hit in enumerate(result["hits"], 1)
        ]
        print(aligned(rows, "rrll") if rows else "  nothing")


def _write_sheet(
    args: argparse.Namespace,
    embeddings: "Embeddings",
    results: list[dict[str, Any]],
    found: "list[list[Hit]]",
) -> None:
    from siglip_jax.search.pictures import pictures_of
    from siglip_jax.search.sheet import Shown, write_sheet

    rows = list(dict.fromkeys(hit.row for hits in found for hit in hits))
    pictures = pictures_of(embeddings, rows, args.images) if embeddings.what == "images" else {}
    sheet = []
    for result, hits in zip(results, found, strict=True):
        shown = [
            Shown(hit.row.key, _score(plain), pictures.get(hit.row), hit.row.text)
            for hit, plain in zip(hits, result["hits"], strict=True)
        ]
        sheet.append((result.get("text", result.get("image", "")), shown))
    write_sheet(Path(args.sheet).expanduser(), sheet)
    if embeddings.what == "images" and len(pictures) < len(rows):
        print(
            f"siglip-jax: {len(rows) - len(pictures):,} of {len(rows):,} images were not found "
            "again; --images says where they are",
            file=sys.stderr,
        )
