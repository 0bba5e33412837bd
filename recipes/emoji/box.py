"""Puts a trained emoji model into the package: weights, vocabulary, pictures, measurements.

    python recipes/emoji/box.py runs/emoji/model --data data/emoji

Writes siglip_jax/emoji (weights in half precision) and the held-out pictures that the tests
measure it on, tests/fixtures/emoji_heldout.parquet.
"""

import argparse
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from measure import measure, table
from PIL import Image
from protocol import evaluation

import siglip_jax
from siglip_jax.config import to_dict
from siglip_jax.weights.npz import write_npz
from siglip_jax.weights.save import on_host
from siglip_jax.weights.tree import flatten

REPO = Path(__file__).parents[2]
BOX = REPO / "siglip_jax" / "emoji"
FIXTURE = REPO / "tests" / "fixtures" / "emoji_heldout.parquet"
SEED = 1
DEMO = {"unseen_combinations": 5, "unseen_names": 3}
FIXTURE_EVALUATIONS = ("unseen_combinations", "unseen_names")


def write_model(model: siglip_jax.Pretrained) -> None:
    """Weights in half precision, the card that says what they are, the vocabulary."""
    BOX.mkdir(exist_ok=True)

    def half(name: str, leaf: Any) -> np.ndarray:
        # exp(t) multiplies every score: it stays in full precision, with the bias.
        array = on_host(leaf)
        return array if name in ("t", "b") else array.astype(np.float16)

    leaves = flatten(model.params)
    write_npz(BOX / "siglip_emoji.npz", ((name, half(name, x)) for name, x in leaves.items()))
    card = {
        "name": "siglip_emoji",
        "config": to_dict(model.config),
        "profile": model.profile.to_dict(),
        "weights": "siglip_emoji.npz",
    }
    (BOX / "siglip_jax.json").write_text(json.dumps(card, indent=1) + "\n")
    assert model.vocabulary is not None
    (BOX / "tokenizer.model").write_bytes(model.vocabulary.read_bytes())


def write_demo(data: Path) -> None:
    """Some held-out pictures, drawn by lot, with labels that are easy to mistake for theirs."""
    protocol = json.loads((data / "protocol.json").read_text("utf-8"))
    names = protocol["names"]
    lot = random.Random(SEED)
    pictures = BOX / "pictures"
    pictures.mkdir(exist_ok=True)
    for old in pictures.iterdir():
        old.unlink()
    shown, labels = [], []
    for name, count in DEMO.items():
        part = protocol["evaluations"][name]
        rows = {r["key"]: r for r in pyarrow.parquet.read_table(data / part["file"]).to_pylist()}
        for key in sorted(lot.sample(part["pictures"], count)):
            Image.open(io.BytesIO(rows[key]["image"])).save(
                pictures / f"{key}.webp", lossless=True, exact=True
            )
            shown.append(
                {
                    "file": f"pictures/{key}.webp",
                    "emoji": rows[key]["emoji"],
                    "unseen": name.removeprefix("unseen_"),
                    "names": {language: names[key][language] for language in ("en", "es")},
                }
            )
            labels.append(key)
            # The same role in every other skin tone, and roles in the same tone.
            alike = [k for k in part["candidates"] if k.split("-")[0] == key.split("-")[0]]
            labels += lot.sample(alike, min(6, len(alike)))
            labels += lot.sample(part["candidates"], 6)
    labels = list(dict.fromkeys(labels))
    demo = {
        "pictures": shown,
        "labels": {language: [names[k][language] for k in labels] for language in ("en", "es")},
    }
    text = json.dumps(demo, ensure_ascii=False, indent=1) + "\n"
    (BOX / "demo.json").write_text(text, "utf-8")


def write_card(model: siglip_jax.Pretrained, measured: dict[str, Any], run: Path) -> None:
    """Fills in the numbers of README.md, the model's card."""
    path = BOX / "README.md"
    leaves = flatten(model.params)
    facts = {
        "parameters": f"{sum(leaf.size for leaf in leaves.values()):,}",
        "bytes": f"{(BOX / 'siglip_emoji.npz').stat().st_size / 1e6:.1f} MB",
        "temperature": f"{float(np.exp(leaves['t'][0])):.1f}",
        "bias": f"{float(leaves['b'][0]):.1f}",
    }
    text = path.read_text("utf-8")
    text = _between(text, "facts", " · ".join(f"{k} {v}" for k, v in facts.items()))
    path.write_text(_between(text, "measured", table(measured)), "utf-8")
    kept = [line for line in history(run) if line["step"] % 20 == 0 or "loss" not in line]
    short = [
        {k: round(v, 4) for k, v in line.items() if k not in ("grad_norm", "lr")} for line in kept
    ]
    (BOX / "history.json").write_text("[\n" + ",\n".join(map(json.dumps, short)) + "\n]\n")


def history(run: Path) -> list[dict[str, Any]]:
    """What a run wrote of every step, after what the run wrote that it began with."""
    begun = (json.loads((run / "recipe.json").read_text())["init"] or {}).get("model")
    before = history(Path(begun).parent) if begun and Path(begun).is_dir() else []
    done = max((line["step"] for line in before), default=0)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return before + [line | {"step": line["step"] + done} for line in lines]


def _between(text: str, name: str, new: str) -> str:
    """`text` with what stands between the marks of `name` replaced."""
    begin, end = f"<!-- {name}: written by recipes/emoji/box.py -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{new}\n{end}{rest.split(end)[1]}"


def write_fixture(data: Path, measured: dict[str, Any]) -> None:
    """Held-out pictures as the model sees them, with their captions and what was measured."""
    protocol = json.loads((data / "protocol.json").read_text("utf-8"))
    rows, told = [], {}
    for name in FIXTURE_EVALUATIONS:
        e = evaluation(protocol, name)
        table = pyarrow.parquet.read_table(data / e.file, columns=["key", "image"])
        images = {row["key"]: row["image"] for row in table.to_pylist()}
        for key, right in zip(e.pictures, e.right, strict=True):
            rows.append(
                {
                    "evaluation": name,
                    "key": key,
                    "image": _as_seen(images[key]),
                    "captions": [protocol["names"][key][each] for each in protocol["languages"]],
                    "right": right,
                }
            )
        told[name] = {"captions": e.captions, "right": measured[name]["right"]["en"]}
    schema = pyarrow.schema(
        [
            ("evaluation", pyarrow.string()),
            ("key", pyarrow.string()),
            ("image", pyarrow.binary()),
            ("captions", pyarrow.list_(pyarrow.string())),
            ("right", pyarrow.list_(pyarrow.int32())),
        ],
        metadata={"evaluations": json.dumps(told, ensure_ascii=False)},
    )
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), FIXTURE)


def _as_seen(image: bytes) -> bytes:
    """Laid over white, without loss."""
    picture = Image.open(io.BytesIO(image))
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture.convert("RGBA"))
    file = io.BytesIO()
    white.convert("RGB").save(file, "WEBP", lossless=True)
    return file.getvalue()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder that siglip-jax train wrote")
    parser.add_argument("--data", type=Path, required=True, help="folder that build.py wrote")
    given = parser.parse_args()
    write_model(siglip_jax.load(given.model))
    boxed = siglip_jax.load(BOX)
    # What is measured is what ships: the weights in half precision.
    measured = measure(boxed.scorer(batch_size=64, text_batch_size=256), given.data)
    (BOX / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")
    write_card(boxed, measured, Path(given.model).parent)
    write_demo(given.data)
    write_fixture(given.data, measured)
    print(table(measured))


if __name__ == "__main__":
    main()
