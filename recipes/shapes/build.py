"""Builds the data of the model of shapes: images of one thing or two, captions that name one.

    python recipes/shapes/build.py --out data/shapes

Writes train.parquet, heldout.parquet (pairs of things that training never shows together) and
tokenizer.model. The same versions of Pillow, NumPy and sentencepiece give the same files.
"""

import argparse
import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import sentencepiece
from PIL import Image
from scenes import THINGS, Scene, caption, held_out_pairs, scenes, training_pairs

TRAIN, HELD_OUT = 6000, 300
SEED = 0
PIECES = 48


def build(out: Path, train: int = TRAIN, held_out: int = HELD_OUT) -> dict[str, int]:
    """Writes all files to `out`; returns the number of images of each."""
    out.mkdir(parents=True, exist_ok=True)
    counts = {"train": train, "heldout": held_out}
    alone = [(thing,) for thing in THINGS]
    groups: dict[str, list[tuple[str, ...]]] = {
        # As many scenes of one thing as of two: from these alone shapes are learned first.
        "train": [*training_pairs(), *alone * (len(training_pairs()) // len(alone))],
        "heldout": sorted(held_out_pairs()),
    }
    for number, (name, count) in enumerate(counts.items()):
        _write(out / f"{name}.parquet", scenes(groups[name], count, SEED + number))
    (out / "tokenizer.model").write_bytes(vocabulary(map(caption, THINGS)))
    return counts


def vocabulary(captions: Iterable[str], pieces: int = PIECES) -> bytes:
    """A sentencepiece model of so few words that its file is small."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sorted(captions)),
        model_writer=written,
        model_type="bpe",
        vocab_size=pieces,
        # The usual rules of normalization take 240 kB.
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        shuffle_input_sentence=False,
        minloglevel=2,
    )
    return written.getvalue()


def _write(path: Path, made: list[Scene]) -> None:
    rows = [{"image": png(scene), "captions": list(scene.captions)} for scene in made]
    partial = path.with_name(f"{path.name}.partial")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), partial)
    partial.replace(path)


def png(scene: Scene) -> bytes:
    """The image of a scene as a file."""
    file = io.BytesIO()
    Image.fromarray(scene.image).save(file, "PNG")
    return file.getvalue()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    given = parser.parse_args()
    for name, count in build(given.out).items():
        print(f"{name:24}{count:6,}")


if __name__ == "__main__":
    main()
