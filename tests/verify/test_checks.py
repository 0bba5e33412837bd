"""Checks of a model that need no published number: each can fail."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doctored import saved

import siglip_jax
from siglip_jax.checkpoints import find
from siglip_jax.verify import checks, published_logits
from siglip_jax.verify.checks import check_texts, check_weights
from siglip_jax.verify.published_logits import Scale


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(saved(tmp_path_factory.mktemp("checked") / "m"))


@pytest.mark.parametrize(
    ("change", "name", "detail"),
    [
        ({"t": [jnp.nan]}, "finite weights", "not finite: t"),
        ({"t": [9.0]}, "temperature exp(t)", "8103.08, expected 1 to 1000"),
        ({"t": [1000.0]}, "temperature exp(t)", "expected 1 to 1000"),
        ({"b": [0.5]}, "bias b", "0.5, expected -100 to 0"),
        ({"b": [float("inf")]}, "bias b", "inf, expected"),
    ],
)
def test_implausible_weights_are_found(model, change, name, detail):
    loaded = siglip_jax.load(model)
    changed = {key: jnp.float32(value) for key, value in change.items()}
    params = {**loaded.params, **changed}
    found = check_weights(dataclasses.replace(loaded, params=params))
    assert {c.name: c for c in found}[name].ok is False
    assert detail in {c.name: c for c in found}[name].detail


def test_the_published_temperature_and_bias(model, monkeypatch):
    """Of three checkpoints big_vision's notebooks print them."""
    row = find("siglip_l16_384")
    loaded = dataclasses.replace(siglip_jax.load(model), checkpoint=row)
    t, b = (float(loaded.params[name][0]) for name in ("t", "b"))
    for scale, expected in (
        (Scale(float(np.exp(t)) + 0.04, b), {"temperature": True, "bias": True}),
        (Scale(float(np.exp(t)) + 0.06, b), {"temperature": False, "bias": True}),
        (Scale(float(np.exp(t)), b + 2e-5), {"temperature": True, "bias": False}),
        (Scale(None, b), {"bias": True}),
    ):
        monkeypatch.setitem(published_logits.SCALES, row.name, scale)
        found = {check.name: check.ok for check in check_weights(loaded)}
        got = {k.split()[1]: ok for k, ok in found.items() if k.startswith("published")}
        assert got == expected
        assert found["parameters"] is False  # it is not L/16


def test_a_tower_that_sees_nothing_is_found(model):
    """Embeddings that do not depend on the input are of length 1 and finite, and useless."""
    loaded = siglip_jax.load(model)
    scorer = loaded.scorer(batch_size=8, text_batch_size=16)
    scorer.params = jax.tree.map(jnp.asarray, loaded.params)
    head = scorer.params["txt"]["head"]
    scorer.params["txt"]["head"] = {"kernel": head["kernel"] * 0, "bias": head["bias"]}
    found = {check.name: check.ok for check in check_texts(scorer)}
    assert found["texts: told apart"] is False and found["texts: length 1"] is True


def test_wrong_ids_are_found(model):
    scorer = siglip_jax.load(model).scorer(batch_size=8, text_batch_size=16)
    ids = checks.encode(scorer.tokenizer, checks.inputs.TEXTS)
    assert checks._check_ids(ids, scorer.tokenizer.profile).ok
    for change, problem in (
        (lambda x: x[:, :-1], "texts have 47 ids, not 48"),
        (lambda x: np.where(x == 1, 5, x), "text 0 has no end"),
        (lambda x: np.concatenate([x[:, :-1], x[:, :1]], 1), "something but padding"),
        (lambda x: np.where((x == 1) & (np.arange(12) == 11)[:, None], 5, x), "text 11 has no end"),
        (lambda x: x + 319 * (x == x.max()), "is beyond the embedding"),
    ):
        found = checks._check_ids(change(ids), scorer.tokenizer.profile)
        assert found.ok is False and problem in found.detail
