"""A dataset small enough to train on in a test: coloured shapes and what they are called."""

import io
import itertools

import numpy as np
import pyarrow
import pyarrow.parquet
import sentencepiece
from PIL import Image, ImageDraw

COLOURS = {
    "red": "#e02020",
    "green": "#20a020",
    "blue": "#2040e0",
    "yellow": "#e0d020",
    "black": "#101010",
    "pink": "#f090c0",
    "brown": "#804010",
    "cyan": "#30d0d0",
}
SHAPES = ("circle", "square", "triangle", "bar", "post", "ring")


def draw(colour, shape, size=24):
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    pen, low, high = ImageDraw.Draw(image), size // 6, size - size // 6
    fill = COLOURS[colour]
    if shape == "circle":
        pen.ellipse((low, low, high, high), fill)
    elif shape == "square":
        pen.rectangle((low, low, high, high), fill)
    elif shape == "triangle":
        pen.polygon(((size // 2, low), (high, high), (low, high)), fill)
    elif shape == "ring":
        pen.ellipse((low, low, high, high), outline=fill, width=size // 8)
    elif shape == "bar":
        pen.rectangle((low, size // 2 - 2, high, size // 2 + 2), fill)
    else:
        pen.rectangle((size // 2 - 2, low, size // 2 + 2, high), fill)
    return image


def names():
    return [f"{colour} {shape}" for colour, shape in itertools.product(COLOURS, SHAPES)]


def write_parquet(path, copies=1):
    rows = []
    for copy, name in itertools.product(range(copies), names()):
        file = io.BytesIO()
        draw(*name.split(), size=24 + 4 * copy).save(file, "PNG")
        rows.append({"key": f"{name} {copy}", "image": file.getvalue(), "captions": [name]})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_vocabulary(path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(names()),
        model_writer=model,
        vocab_size=40,
        hard_vocab_limit=False,
        model_type="bpe",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return path


def recipe(folder, **changes):
    """A recipe as its TOML file says it, its data written to `folder` first."""
    data, vocabulary = folder / "shapes.parquet", folder / "shapes.model"
    if not data.exists():
        write_parquet(data)
        write_vocabulary(vocabulary)
    size = {"width": 32, "depth": 2, "mlp_dim": 64, "num_heads": 4}
    return {
        "steps": 200,
        "batch": 24,
        "seed": 0,
        "data": {"train": str(data)},
        "model": {
            "image": size | {"patch": 8, "res": 16},
            "text": size | {"vocab_size": 64, "length": 8},
            "vocabulary": str(vocabulary),
        },
        "optimizer": {"lr": 3e-3, "warmup": 20},
    } | changes


def pixels(name, size=16):
    return np.asarray(draw(*name.split(), size=size).convert("RGB"))
