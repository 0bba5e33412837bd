"""A dataset small enough to train on in a test: coloured shapes and what they are called."""

import atexit
import functools
import io
import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import sentencepiece
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image, ImageDraw

from siglip_jax.programs.sharding import make_mesh
from siglip_jax.training import TrainingResult, recipe_from_dict, train
from siglip_jax.training.journal import read_journal

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
# Of both towers.
SIZE = {"width": 32, "depth": 1, "mlp_dim": 64, "num_heads": 2}
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


def write_vocabulary(path, sentences=None):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences or names()),
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
    return {
        "steps": 200,
        "batch": 24,
        "seed": 0,
        "data": {"train": str(data)},
        "model": {
            "image": SIZE | {"patch": 8, "res": 16},
            "text": SIZE | {"vocab_size": 64, "length": 16},
            "vocabulary": str(vocabulary),
        },
        "optimizer": {"lr": 3e-3, "warmup": 20},
    } | changes


def trained(folder, table, run="run", **options):
    """Runs a recipe as `recipe` gives it; the `TrainingResult`."""
    return train(recipe_from_dict(table), folder / run, **options)


class Trained(NamedTuple):
    folder: Path
    table: dict[str, Any]
    result: TrainingResult


@functools.cache
def trained_model():
    """A run of two hundred steps on one device, once for all tests that begin with a model."""
    folder = Path(scratch()) / "trained"
    folder.mkdir()
    table = recipe(folder, evaluate={"data": str(folder / "shapes.parquet")})
    return Trained(folder, table, trained(folder, table, mesh=make_mesh(jax.devices()[:1])))


def toml(table, name=""):
    """The text of a recipe's TOML file."""
    lines = [f"[{name}]"] if name else []
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    lines += [f"{k} = {json.dumps(v)}" for k, v in table.items() if k not in tables]
    inside = f"{name}." if name else ""
    return "\n".join(lines + [toml(value, inside + key) for key, value in tables.items()])


def journal(run):
    """What a run wrote, but for how long it took."""
    speed = ("seconds", "examples/s")
    lines = read_journal(run)
    return [{name: line[name] for name in line if name not in speed} for line in lines]


def bits(params):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


@functools.cache
def scratch():
    """A folder of this session's; its compiled programs lie there for its subprocesses."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@pytest.fixture(scope="module")
def compiled_once():
    """Compiles quickly, if not to quick programs, and what comes again not at all."""
    settings = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": scratch(),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the pictures and the vocabulary."""
    folder = tmp_path_factory.mktemp("shapes")
    recipe(folder)
    return folder
