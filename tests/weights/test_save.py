"""save: what is written is what load gives back; whole or not at all."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
from saved_model import VOCABULARY, saved, with_vocabulary
from tiny_checkpoint import bits
from towers import NAMES, case

from siglip_jax import load, pretrained, save
from siglip_jax.converters.siglip_folder import CONFIG as CARD
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import custom_profile


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_what_is_loaded(tmp_path, name):
    tiny = case(name)
    model = SiglipModel(tiny.config, tiny.execution)
    folder = save(
        tmp_path / "m", model, tiny.params, profile=custom_profile(tiny.config, pad=1), name="mine"
    )
    assert sorted(p.name for p in folder.iterdir()) == [CARD, "weights.safetensors"]
    again = load(folder, execution=tiny.execution)
    assert (again.name, again.config, again.checkpoint) == ("mine", tiny.config, None)
    assert again.profile == custom_profile(tiny.config, pad=1)
    assert bits(again.params) == bits(tiny.params)
    params = jax.tree.map(jnp.asarray, tiny.params)
    expected = jax.jit(model.apply)({"params": params}, tiny.images, tiny.texts)
    got = jax.jit(again.model.apply)({"params": again.params}, tiny.images, tiny.texts)
    for i in range(2):
        np.testing.assert_array_equal(got[i], expected[i])


def test_a_saved_vocabulary_comes_along(tmp_path):
    folder = saved(tmp_path / "m")
    assert (folder / "tokenizer.model").read_bytes() == VOCABULARY.read_bytes()
    model = load(folder)
    image = np.zeros((40, 30, 3), np.uint8)
    before = model.scorer(batch_size=1).score([image], ["a cat", "a dog"])
    np.testing.assert_array_equal(
        load(str(folder)).scorer(batch_size=1).score([image], ["a cat", "a dog"]).logits,
        before.logits,
    )
    assert np.ptp(before.logits) > 0


def test_save_refuses_an_existing_folder_and_leaves_it(tmp_path):
    model, params, profile = with_vocabulary()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "keep").write_text("x")
    with pytest.raises(ValueError, match=r"m exists already; choose another name or remove it"):
        save(tmp_path / "m", model, params, profile=profile)
    assert [p.name for p in tmp_path.rglob("*")] == ["m", "keep"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_nothing(tmp_path, monkeypatch, error):
    written = []

    def fails(leaf):
        written.append(leaf)
        if len(written) == 5:
            raise error
        return np.asarray(leaf)

    monkeypatch.setattr(pretrained, "on_host", fails)
    model, params, profile = with_vocabulary()
    with pytest.raises(type(error)):
        save(tmp_path / "m", model, params, profile=profile, vocabulary=VOCABULARY)
    assert list(tmp_path.iterdir()) == []


def test_save_checks_the_vocabulary_first(tmp_path):
    model, params, profile = with_vocabulary()
    text = dataclasses.replace(profile.text, vocabulary="gemma")
    with pytest.raises(
        ValueError, match=r"wrong vocabulary: it has 320 pieces; the model needs gemma"
    ):
        save(
            tmp_path / "m",
            model,
            params,
            profile=dataclasses.replace(profile, text=text),
            vocabulary=VOCABULARY,
        )
    with pytest.raises(ValueError, match="vocabulary cannot be read: No such file"):
        save(tmp_path / "m", model, params, profile=profile, vocabulary=tmp_path / "none.model")
    assert list(tmp_path.iterdir()) == []


def test_the_fixture_vocabulary_is_what_saved_model_says():
    assert sentencepiece.SentencePieceProcessor(model_file=str(VOCABULARY)).GetPieceSize() == 320
