"""The model in the box: does a score mean something?

tests/fixtures/emoji_heldout.parquet holds pictures it has never seen and what was measured on
them; recipes/emoji/box.py writes both.
"""

import io
import json
import re

import numpy as np
import pyarrow.parquet
import pytest
from paths import FIXTURES, REPO
from PIL import Image

import siglip_jax
from siglip_jax.weights.tree import flatten

BOX = REPO / "siglip_jax" / "emoji"


@pytest.fixture(scope="module")
def held_out():
    table = pyarrow.parquet.read_table(FIXTURES / "emoji_heldout.parquet")
    return table.to_pylist(), json.loads(table.schema.metadata[b"evaluations"])


@pytest.fixture(scope="module")
def scorer():
    return siglip_jax.load("siglip_emoji").scorer(batch_size=64, text_batch_size=256)


@pytest.fixture(scope="module")
def measured():
    return json.loads((BOX / "measured.json").read_text())


def accuracy(scorer, rows, captions):
    zimg = scorer.embed_images(Image.open(io.BytesIO(row["image"])) for row in rows)
    best = (zimg @ scorer.embed_texts(captions).T).argmax(axis=1)
    return np.mean([place in row["right"] for place, row in zip(best, rows, strict=True)])


@pytest.mark.parametrize("name", ["unseen_combinations", "unseen_names"])
def test_it_is_as_good_as_its_card_says(scorer, held_out, measured, name):
    rows, evaluations = held_out
    rows = [row for row in rows if row["evaluation"] == name]
    stated = measured[name]["right"]["en"]
    assert len(rows) == measured[name]["pictures"]
    assert len(evaluations[name]["captions"]) == measured[name]["captions"]
    # Another machine rounds differently, which can decide between two captions.
    assert abs(accuracy(scorer, rows, evaluations[name]["captions"]) - stated) <= 2 / len(rows)


def test_it_knows_what_it_was_never_shown(measured):
    for language in ("en", "es"):
        assert measured["unseen_combinations"]["right"][language] > 0.7  # chance is 0.06%
        assert measured["unseen_names_among_unseen"]["right"][language] > 0.05  # and 0.5%
        assert measured["twemoji_seen_untoned"]["right"][language] > 0.2  # and 0.06%


def test_scores_of_matching_pairs_are_probable_and_of_others_are_not(scorer, held_out):
    rows, evaluations = held_out
    rows = [row for row in rows if row["evaluation"] == "unseen_combinations"][::4]
    captions = evaluations["unseen_combinations"]["captions"]
    images = [Image.open(io.BytesIO(row["image"])) for row in rows]
    probabilities = scorer.score(images, captions).probabilities
    own = np.zeros(probabilities.shape, bool)
    for row, right in zip(own, (r["right"] for r in rows), strict=True):
        row[right] = True
    assert np.median(probabilities[own]) > 0.3
    assert np.median(probabilities[~own]) < 1e-3


def test_the_card_states_what_was_measured(measured):
    card = (BOX / "README.md").read_text("utf-8")
    for name, m in measured.items():
        begin = f"| {name.replace('_', ' ')}, {m['pictures']:,} |"
        (row,) = [line for line in card.splitlines() if line.startswith(begin)]
        shares = [f"{share:.1%}" for share in m["right"].values()]
        assert re.findall(r"[\d.]+%", row)[1:] == shares


def test_it_is_small_and_in_half_precision():
    files = [file for file in BOX.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12e6
    params = flatten(siglip_jax.load("siglip_emoji").params)
    assert {name for name, leaf in params.items() if leaf.dtype != np.float16} == {"t", "b"}


def test_a_misspelled_name():
    with pytest.raises(ValueError, match="called 'siglip_emojy'; did you mean siglip_emoji"):
        siglip_jax.load("siglip_emojy")


def test_what_it_is_called_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = siglip_jax.load("siglip_emoji")
    assert (model.name, model.checkpoint) == ("siglip_emoji", None)
    assert model.config.vision.res == 32
    (tmp_path / "siglip_emoji").mkdir()
    with pytest.raises(ValueError, match="siglip_emoji"):
        siglip_jax.load("siglip_emoji")  # a folder of one's own comes first
