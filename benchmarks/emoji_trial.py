"""One short training run on the emoji data, from scratch, and how many names it gets right.

What `emoji_batch_sizes.py` does many times.
"""

import dataclasses
import functools
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image

from siglip_jax.config import Siglip, Size, Text, Vision
from siglip_jax.models import SiglipModel, abstract_inputs, value_range
from siglip_jax.preprocessing import Tokenizer, custom_profile, preprocess_image
from siglip_jax.programs.sharding import make_mesh
from siglip_jax.training.optimizer import make_optimizer, treatments
from siglip_jax.training.recipe import Loss, Optimizer, ParameterRule
from siglip_jax.training.step import (
    Metrics,
    TrainBatch,
    TrainState,
    make_loss,
    make_step,
    split,
)

TESTS = {"unseen_combinations": "unseen combinations", "seen": "seen in training"}
MODEL = Siglip(
    vision=Vision(size=Size(width=128, depth=2, mlp_dim=512, num_heads=4), patch=16, res=32),
    text=Text(
        size=Size(width=64, depth=1, mlp_dim=256, num_heads=2), vocab_size=4096, length=16, head=128
    ),
)


class Test(NamedTuple):
    """Pictures to name: `right` (pictures, texts) says which texts count."""

    pictures: np.ndarray
    texts: np.ndarray
    right: np.ndarray


class Task(NamedTuple):
    """`pictures` (n, res, res, 3) uint8; `captions` (n, k, length), one of which is drawn."""

    pictures: np.ndarray
    captions: np.ndarray
    tests: dict[str, Test]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """What one run is a run of."""

    loss: str
    batch: int
    lr: float
    examples: int
    seed: int = 0
    temperature: float = 10.0
    bias: float | None = -10.0


def read_task(data: Path, model: Siglip = MODEL) -> Task:
    """The emoji data of `recipes/emoji/build.py`: drawn on white, with English captions."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes" / "emoji"))
    from protocol import evaluation

    profile = custom_profile(model, pad=0)
    text = dataclasses.replace(profile.text, lower="unicode")
    image = dataclasses.replace(profile.image, decode="pillow", resize="torch_bilinear")
    tokenizer = Tokenizer(data / "tokenizer.model", text)
    encode = functools.partial(tokenizer.encode, warn=False)
    rows, pictures = {}, {}
    for file in ("train.parquet", "heldout_combinations.parquet"):
        columns = ["key", "image", "captions"]
        rows[file] = pyarrow.parquet.read_table(data / file, columns=columns).to_pylist()
        for row in rows[file]:
            picture = preprocess_image(Image.open(io.BytesIO(row["image"])), image)
            pictures[file, row["key"]] = picture
    protocol = json.loads((data / "protocol.json").read_text("utf-8"))
    tests = {}
    for name in TESTS:
        e = evaluation(protocol, name)
        right = np.zeros((len(e.pictures), len(e.captions)), bool)
        for row, places in enumerate(e.right):
            right[row, places] = True
        tests[name] = Test(
            np.stack([pictures[e.file, key] for key in e.pictures]), encode(e.captions), right
        )
    # The first ten are English; two emoji have fewer captions, for which some count twice.
    return Task(
        np.stack([pictures["train.parquet", row["key"]] for row in rows["train.parquet"]]),
        np.stack([encode(row["captions"][:10]) for row in rows["train.parquet"]]),
        tests,
    )


def batches(task: Task, trial: Trial) -> Iterator[TrainBatch]:
    """Every batch is drawn anew, no picture twice in it: a duplicate would be a wrong negative."""
    rng = np.random.default_rng(trial.seed)
    n, k = task.captions.shape[:2]
    for _ in range(trial.examples // trial.batch):
        index = rng.permutation(n)[: trial.batch]
        text = task.captions[index, rng.integers(k, size=trial.batch)]
        yield TrainBatch(jnp.asarray(task.pictures[index]), jnp.asarray(text))


@functools.cache
def programs(model: Siglip, loss: str, steps: int, biased: bool) -> tuple[Any, Any]:
    """What is compiled once for all seeds: (key, t, b) -> state, (state, batch, lr) -> step."""
    mesh = make_mesh(jax.devices()[:1])
    module = SiglipModel(model)
    inputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_inputs(model))
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    frozen = [] if biased else [ParameterRule(pattern="b", frozen=True)]
    # No weight decay: it does not scale with the learning rate, and would follow the updates.
    how = Optimizer(weight_decay=0.0, warmup=steps // 10)
    trained = treatments(flatten_dict(shapes, sep="/"), frozen, how)

    def begin(key: Any, t: Any, b: Any) -> TrainState:
        params = module.init(key, *inputs)["params"] | {"t": t, "b": b}
        tx = make_optimizer(how, trained, steps)
        moments = tx.init(unflatten_dict(split(params, trained)[0], sep="/"))
        return TrainState(jnp.zeros([], jnp.int32), params, moments)

    def step(state: TrainState, batch: TrainBatch, lr: Any) -> tuple[TrainState, Metrics]:
        tx = make_optimizer(dataclasses.replace(how, lr=lr), trained, steps)
        return make_step(module, tx, trained, make_loss(Loss(name=loss), mesh), mesh)(state, batch)

    return jax.jit(begin), jax.jit(step, donate_argnums=0)


@functools.cache
def embedder(model: Siglip) -> Any:
    """(params, pictures, texts) -> the embeddings of both."""
    module = SiglipModel(model)

    def embed(params: Any, pictures: Any, texts: Any) -> Any:
        return module.apply({"params": params}, value_range(pictures, -1.0, 1.0), texts)[:2]

    return jax.jit(embed)


def run(task: Task, trial: Trial, model: Siglip = MODEL) -> dict[str, Any]:
    """Trains from scratch; returns the share of right names in each test, and how it ended."""
    if trial.batch > len(task.pictures):
        raise ValueError(f"batch={trial.batch} is more than the {len(task.pictures)} pictures")
    start = time.process_time()
    steps = trial.examples // trial.batch
    begin, step = programs(model, trial.loss, steps, trial.bias is not None)
    t, b = (
        jnp.full(1, value, jnp.float32) for value in (np.log(trial.temperature), trial.bias or 0)
    )
    state = begin(jax.random.key(trial.seed), t, b)
    losses = []
    for batch in batches(task, trial):
        state, metrics = step(state, batch, trial.lr)
        losses.append(metrics.loss)
    result = dataclasses.asdict(trial) | {
        "updates": len(losses),
        "first_loss": float(losses[0]),
        "last_loss": float(np.mean(losses[-max(1, len(losses) // 20) :])),
        "last_temperature": float(metrics.temperature),
        "last_bias": float(metrics.bias),
    }
    for name, test in task.tests.items():
        zimg, ztxt = map(np.asarray, embedder(model)(state.params, test.pictures, test.texts))
        best = (zimg @ ztxt.T).argmax(axis=1)
        result[name] = float(test.right[np.arange(len(best)), best].mean())
    return result | {"cpu_seconds": round(time.process_time() - start, 1)}
