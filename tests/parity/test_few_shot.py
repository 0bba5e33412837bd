"""Our few-shot probe beside big_vision's, whose own evaluator is run.

Needs a big_vision checkout on PYTHONPATH and the `parity` extra.
"""

import importlib.util
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

import siglip_jax
from siglip_jax.data import captions_of, items_of, open_pairs
from siglip_jax.evaluation import FewShot, Images, imagenet_classes
from siglip_jax.evaluation.imagenet import IMAGENET_SETS

with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
    warnings.simplefilter("ignore")  # TensorFlow's and big_vision's own, at import
    pytest.importorskip(
        "big_vision.utils", reason="needs big_vision: run `make parity BIG_VISION=...`"
    )
    if importlib.util.find_spec("tensorflow_datasets") is None:
        # Imported there at once, used here for nothing.
        patch.setitem(sys.modules, "tensorflow_datasets", types.ModuleType("tensorflow_datasets"))
    fewshot_lsr = pytest.importorskip("big_vision.evaluators.fewshot_lsr")
    from big_vision.configs.common_fewshot import get_fewshot_lsr
    from big_vision.datasets.imagenet import class_names

# big_vision is not ours to fix; ours stays under the suite's own rule everywhere else.
pytestmark = pytest.mark.filterwarnings("ignore")
EMOJI = Path(__file__).parents[1] / "fixtures" / "emoji_heldout.parquet"


def synthetic():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((9, 24))
    labels = np.concatenate([np.tile(np.arange(9), 12), rng.integers(0, 9, 492)])
    z = centres[labels] + 1.5 * rng.standard_normal((600, 24))
    z = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    return z, [f"class {label}" for label in labels], 400


def bundled():
    """Emoji of people, by skin tone."""
    pairs = open_pairs(str(EMOJI))
    firsts = [own[0] for own in captions_of(pairs)]
    rows = [row for row, text in enumerate(firsts) if text.endswith(" skin tone")]
    items = list(items_of(pairs))
    scorer = siglip_jax.load("siglip_emoji").scorer(tokenizer=False)
    zimg, found = scorer.embed_items([items[row] for row in rows])
    assert len(found.good) == len(rows)
    return zimg, [firsts[row].split()[-3] for row in rows], 150


@pytest.mark.parametrize("case", [synthetic, bundled])
@pytest.mark.parametrize("shots", [1, 5, 10])
def test_accuracy(case, shots):
    zimg, names, tests = case()
    task = FewShot([[name] for name in names], tests, shots=shots)
    images = Images(zimg, np.arange(len(zimg)))
    got, facts = task.measure(images)
    labels = np.array([task.classes.index(name) for name in names])
    evaluator = object.__new__(fewshot_lsr.Evaluator)
    evaluator._repr = {
        "mine": (zimg[tests:], labels[tests:], zimg[:tests], labels[:tests], len(task.classes))
    }
    settings = get_fewshot_lsr()
    evaluator.shots, evaluator.l2_reg = [shots], settings.l2_reg
    expected = [
        float(evaluator.compute_fewshot_metrics(None, seed, "mine", "train", "test")[shots])
        for seed in range(settings.num_seeds)
    ]
    assert facts["probe"]["accuracy_by_seed"] == pytest.approx(expected, rel=0, abs=1e-6)
    assert got["accuracy"] == pytest.approx(np.mean(expected), rel=0, abs=1e-6)
    assert 1 / len(task.classes) < got["accuracy"] < 1


def test_class_names():
    assert list(imagenet_classes()) == class_names.CLIP_IMAGENET_CLASS_NAMES
    assert list(IMAGENET_SETS["imagenet_a"]) == class_names.IMAGENET_A_LABELSET
    assert list(IMAGENET_SETS["imagenet_r"]) == class_names.IMAGENET_R_LABELSET
