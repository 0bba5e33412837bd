"""What a notebook prints of a model and of scores: lines, not millions of numbers."""

import re

import numpy as np
import pytest

import siglip_jax
from siglip_jax.scoring import Scores


def test_a_model_is_a_few_lines():
    printed = repr(siglip_jax.load("siglip_emoji"))
    assert len(printed.splitlines()) <= 6 and len(printed) < 800
    assert printed.startswith("Pretrained siglip_emoji: 1,")
    assert "width=192" in printed and "vocab_size=2048" in printed


def test_a_scorer_is_a_few_lines():
    model = siglip_jax.load("siglip_emoji")
    printed = repr(model.scorer(batch_size=4)).splitlines()
    assert printed[0] == "Scorer on 1 cpu, in batches of 4 images and 64 texts"
    assert len(printed) == 5 and printed[-1] == "  tokenizer: yes"
    bare = repr(siglip_jax.Scorer(model.model, model.params))
    assert "profile: none: ready arrays only" in bare and "tokenizer: none: token ids only" in bare


def test_both_are_tables_in_a_notebook():
    model = siglip_jax.load("siglip_emoji")
    for shown in (model._repr_html_(), model.scorer()._repr_html_()):
        assert shown.count("<tr>") == 4 and len(shown) < 1000
        assert "pool=&#x27;map&#x27;" in shown


def test_scores_are_the_best_of_a_few_images():
    logits = np.float32(np.arange(24).reshape(6, 4)) - 20
    scores = Scores(logits, ("a", "<b>", "c", "d"))
    lines = repr(scores).splitlines()
    assert lines[0] == "Scores of 6 images with 4 labels; the best of each:"
    assert lines[1] == "  0: d <0.0001%, c <0.0001%, <b> <0.0001%"
    assert lines[3] == "  2: d 0.01%, c 0.005%, <b> 0.002%"
    assert lines[-1] == "  ..." and len(lines) == 7
    assert "&lt;b&gt;" in scores._repr_html_() and scores._repr_html_().count("<tr>") == 5


def test_scores_as_a_table():
    pytest.importorskip("pandas")
    scores = Scores(np.float32([[0, 1], [2, -1]]), ("a dog", "a cat"))
    table = scores.to_pandas(["x.jpg", "y.jpg"])
    assert list(table.columns) == ["a dog", "a cat"] and list(table.index) == ["x.jpg", "y.jpg"]
    np.testing.assert_array_equal(table.to_numpy(), scores.probabilities)
    with pytest.raises(ValueError, match="1 image for 2 rows of scores"):
        scores.to_pandas(["x.jpg"])


def test_the_version():
    assert re.fullmatch(r"\d+\.\d+.*", siglip_jax.__version__)
