"""Show the bundled model at work: emoji it has never seen, named in two languages.

  siglip-jax demo

The images were drawn by lot from those held out of its training: combinations of a role
and a skin tone, and whole emoji. Needs no network. The model and what it can and cannot do
are described in its card, siglip_jax/emoji/README.md.
"""

import argparse
import json
from typing import Any

from siglip_jax.cli.output import add_json_argument, print_json, screen

NAME = "demo"
HELP = "show the small bundled model on images it has never seen"
USAGE = "%(prog)s [--json]"
LANGUAGES = {"en": "English", "es": "Spanish"}
NEXT = (
    "These are drawings, and a model of {size} MB. For photographs:\n"
    '  siglip-jax score --model ViT-B-16-SigLIP photo.jpg --labels "a dog" "a cat"'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from siglip_jax.fetch import BUNDLED

    box = BUNDLED["siglip_emoji"]
    demo = json.loads((box / "demo.json").read_text("utf-8"))

    from siglip_jax.cli.options.model import available_mesh
    from siglip_jax.pretrained import load
    from siglip_jax.scoring.scores import sigmoid

    available_mesh()
    scorer = load("siglip_emoji").scorer(batch_size=len(demo["pictures"]), text_batch_size=64)
    zimg = scorer.embed_images([box / picture["file"] for picture in demo["pictures"]])
    results = []
    for language in LANGUAGES:
        labels = demo["labels"][language]
        probabilities = sigmoid(scorer.logits(zimg, scorer.embed_labels(labels)))
        for picture, row in zip(demo["pictures"], probabilities, strict=True):
            best = row.argmax()
            name = picture["names"][language]
            results.append(
                {
                    "emoji": picture["emoji"],
                    "unseen": picture["unseen"],
                    "language": language,
                    "name": name,
                    "best": labels[best],
                    "probability": float(row[best]),
                    "right": labels[best] == name,
                }
            )
    if args.json:
        print_json({"model": "siglip_emoji", "labels": demo["labels"], "results": results})
        return 0
    _print(results, {language: len(demo["labels"][language]) for language in LANGUAGES})
    size = round((box / "siglip_emoji.npz").stat().st_size / 1e6)
    print(NEXT.format(size=size))
    return 0


def _print(results: list[dict[str, Any]], labels: dict[str, int]) -> None:
    from rich.table import Table

    from siglip_jax.cli.commands.score import bar, percent

    console = screen()
    for language, spoken in LANGUAGES.items():
        rows = [r for r in results if r["language"] == language]
        right = sum(r["right"] for r in rows)
        table = Table(
            title=f"{spoken}: the best of {labels[language]} labels, {right} of {len(rows)} right",
            title_justify="left",
            title_style="bold",
            box=None,
            padding=(0, 2, 0, 0),
        )
        for column in ("", "best label", "", "", "never seen"):
            table.add_column(column, justify="left")
        for r in rows:
            table.add_row(
                r["emoji"],
                r["best"] if r["right"] else f"{r['best']}\n[dim]it is: {r['name']}[/dim]",
                f"[green]{bar(r['probability'], 10)}[/green]",
                percent(r["probability"]),
                "in this skin tone" if r["unseen"] == "combinations" else "at all",
            )
        console.print(table)
        console.print()
