"""Measures a model by the protocol of the emoji data, and prints the tables of its card.

    python recipes/emoji/measure.py MODEL --data data/emoji

MODEL is anything that `siglip_jax.load` takes. A picture is right if the most similar of the
candidate captions is one of its own.
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from PIL import Image
from protocol import evaluation

import siglip_jax


def measure(
    scorer: siglip_jax.Scorer, data: Path, languages: list[str] | None = None
) -> dict[str, Any]:
    """Evaluation name -> pictures, captions, chance, and the share right in each language."""
    protocol = json.loads((data / "protocol.json").read_text("utf-8"))
    languages = languages or protocol["languages"]
    zimg = {}
    for file in sorted({part["file"] for part in protocol["evaluations"].values()}):
        rows = pyarrow.parquet.read_table(data / file, columns=["key", "image"]).to_pylist()
        z = scorer.embed_images(Image.open(io.BytesIO(row["image"])) for row in rows)
        zimg[file] = {row["key"]: each for row, each in zip(rows, z, strict=True)}
    ztxt: dict[str, np.ndarray] = {}
    result: dict[str, Any] = {}
    for name in protocol["evaluations"]:
        right = {}
        for language in languages:
            e = evaluation(protocol, name, language)
            new = [caption for caption in e.captions if caption not in ztxt]
            if new:
                ztxt |= dict(zip(new, scorer.embed_texts(new), strict=True))
            z = np.stack([zimg[e.file][key] for key in e.pictures])
            best = (z @ np.stack([ztxt[caption] for caption in e.captions]).T).argmax(axis=1)
            hits = [place in places for place, places in zip(best, e.right, strict=True)]
            right[language] = float(np.mean(hits))
            if language == "en":
                chance = np.mean([len(places) for places in e.right]) / len(e.captions)
                result[name] = {
                    "pictures": len(e.pictures),
                    "captions": len(e.captions),
                    "chance": float(chance),
                }
        result[name]["right"] = right
    return result


def table(measured: dict[str, Any]) -> str:
    """The measurements as a Markdown table."""
    languages = list(next(iter(measured.values()))["right"])
    lines = [
        f"| pictures | captions | chance | {' | '.join(languages)} |",
        f"|---|--:|--:|{'--:|' * len(languages)}",
    ]
    for name, m in measured.items():
        shares = " | ".join(f"{m['right'][language]:.1%}" for language in languages)
        lines.append(
            f"| {name.replace('_', ' ')}, {m['pictures']:,} | {m['captions']:,} "
            f"| {m['chance']:.2%} | {shares} |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="folder that build.py wrote")
    parser.add_argument("--languages", nargs="+", help="such as en fr; all unless given")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    given = parser.parse_args()
    scorer = siglip_jax.load(given.model).scorer(batch_size=64, text_batch_size=256)
    measured = measure(scorer, given.data, given.languages)
    if given.json:
        given.json.write_text(json.dumps(measured, indent=1) + "\n")
    print(table(measured))


if __name__ == "__main__":
    main()
