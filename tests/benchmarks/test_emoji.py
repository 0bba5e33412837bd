"""The experiment of benchmarks/emoji_batch_sizes.py, at a tiny size."""

import dataclasses
import sys

import numpy as np
import pytest
from paths import REPO

pytest.importorskip("pyarrow", reason="the emoji data needs: pip install pyarrow")

BENCHMARKS = REPO / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import emoji_batch_sizes  # noqa: E402
import emoji_trial  # noqa: E402

from siglip_jax.config import Siglip, Size, Text, Vision  # noqa: E402

TINY = Size(width=16, depth=1, mlp_dim=32, num_heads=2)
MODEL = Siglip(
    vision=Vision(size=TINY, patch=4, res=4),
    text=Text(size=TINY, vocab_size=40, length=4, head=16),
)
COLOURS = 12
TRIAL = emoji_trial.Trial(loss="sigmoid", batch=8, lr=2e-2, examples=8 * 80)


def task() -> emoji_trial.Task:
    """Plain colours, each called by its own word, with or without another before it."""
    rng = np.random.default_rng(0)
    pictures = np.empty((COLOURS, 4, 4, 3), np.uint8)
    pictures[:] = rng.integers(256, size=(COLOURS, 1, 1, 3))
    names = np.arange(COLOURS)[:, None] + np.array([2, 0, 0, 0])
    captions = np.stack([names, np.roll(names, 1, axis=1) + np.array([30, 0, 0, 0])], axis=1)
    test = emoji_trial.Test(pictures, names.astype(np.int32), np.eye(COLOURS, dtype=bool))
    return emoji_trial.Task(pictures, captions.astype(np.int32) % 40, {"seen": test})


@pytest.mark.parametrize("loss", emoji_batch_sizes.LOSSES)
def test_a_run_learns_and_repeats_exactly(loss: str) -> None:
    trial = dataclasses.replace(TRIAL, loss=loss)
    first, again = (emoji_trial.run(task(), trial, MODEL) for _ in range(2))
    assert first["seen"] > 0.6  # by chance 1/12
    assert first["last_loss"] < first["first_loss"] / 2
    assert first["updates"] == 80
    assert {**first, "cpu_seconds": 0} == {**again, "cpu_seconds": 0}


def test_temperature_and_bias_begin_where_the_trial_says_and_no_bias_stays_none() -> None:
    short = dataclasses.replace(TRIAL, examples=8, lr=0.0, temperature=1.0, bias=-3.0)
    result = emoji_trial.run(task(), short, MODEL)
    assert result["last_temperature"] == pytest.approx(1.0)
    assert result["last_bias"] == -3.0
    none = emoji_trial.run(task(), dataclasses.replace(TRIAL, bias=None), MODEL)
    assert none["last_bias"] == 0.0
    assert none["last_temperature"] != pytest.approx(10.0, abs=1e-3)


@pytest.mark.parametrize("batch", [4, 12])
def test_every_batch_size_sees_as_many_pictures_and_none_twice_in_a_batch(batch: int) -> None:
    trial = dataclasses.replace(TRIAL, batch=batch, examples=48)
    seen = [tuple(text[text >= 2]) for b in emoji_trial.batches(task(), trial) for text in b.text]
    assert len(seen) == 48
    for b in emoji_trial.batches(task(), trial):
        assert len({image.tobytes() for image in np.asarray(b.image)}) == batch


def test_a_batch_of_more_than_all_pictures_is_refused() -> None:
    trial = dataclasses.replace(TRIAL, batch=16, examples=64)
    with pytest.raises(ValueError, match="batch=16 is more than the 12 pictures"):
        emoji_trial.run(task(), trial, MODEL)
