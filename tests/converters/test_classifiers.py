"""Classifier fine-tunes: what is read, what the classifier says, where it may go."""

import json

import jax
import numpy as np
import pytest
from classifier_folders import (
    LABELS,
    NAFLEX,
    head,
    read_weights,
    timm_folder,
    transformers_folder,
    write_weights,
)
from torch_libraries import inputs

import siglip_jax
from siglip_jax.converters import convert, open_checkpoint, plan
from siglip_jax.preprocessing import custom_profile


def loaded(folder):
    with open_checkpoint(folder) as opened:
        config = opened.config
    return siglip_jax.load(folder, profile=custom_profile(config, 1))


def outputs(model, images):
    params = {"params": model.params}
    return jax.jit(lambda x: model.model.apply(params, x)[2])(images)


@pytest.mark.parametrize("naflex", [False, True])
def test_transformers_pools_the_mean_of_the_last_tokens(tmp_path, naflex):
    folder = transformers_folder(tmp_path, **({"config": NAFLEX} if naflex else {}))
    model = loaded(folder)
    assert model.config.tower == "image"
    images, _ = inputs(model.config)
    encoded = np.asarray(outputs(model, images)["img/encoded"])
    valid = np.asarray(images.type)[..., None] if naflex else np.ones((*encoded.shape[:2], 1))
    mean = (encoded * valid).sum(1) / valid.sum(1)
    weight, bias = head()
    scores = model.scorer(batch_size=2).classify(images)
    assert np.isfinite(scores.logits).all() and np.ptp(scores.logits, axis=0).min() > 1e-3
    np.testing.assert_allclose(scores.logits, mean @ weight.T + bias, atol=1e-5)
    assert scores.labels == LABELS
    np.testing.assert_allclose(scores.probabilities.sum(1), 1, atol=1e-6)


def test_timm_pools_with_the_head(tmp_path):
    model = loaded(timm_folder(tmp_path))
    images, _ = inputs(model.config)
    pooled = np.asarray(outputs(model, images)["img/head_input"])
    weight, bias = head()
    scores = model.scorer(batch_size=2).classify(images)
    assert np.isfinite(scores.logits).all() and np.ptp(scores.logits, axis=0).min() > 1e-3
    np.testing.assert_allclose(scores.logits, pooled @ weight.T + bias, atol=1e-5)
    assert scores.labels == LABELS


@pytest.mark.parametrize(
    ("card", "activation"),
    [
        ({}, "softmax"),
        ({"problem_type": "single_label_classification"}, "softmax"),
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
        ({"problem_type": "regression"}, None),
        ({"problem_type": None}, "softmax"),
    ],
)
def test_probabilities_are_made_as_it_was_trained(tmp_path, card, activation):
    model = loaded(transformers_folder(tmp_path, **card))
    assert model.classifier.activation == activation
    scores = model.scorer().classify(inputs(model.config)[0])
    if activation is None:
        with pytest.raises(ValueError, match="this model is a regression"):
            _ = scores.probabilities
    elif activation == "sigmoid":
        expected = 1 / (1 + np.exp(-scores.logits))
        np.testing.assert_allclose(scores.probabilities, expected, atol=1e-6)


def test_one_class_is_a_yes_or_no(tmp_path):
    with open_checkpoint(transformers_folder(tmp_path, labels=("spam",))) as opened:
        assert opened.classifier.activation == "sigmoid"


def test_classes_without_names(tmp_path):
    with open_checkpoint(timm_folder(tmp_path, labels=None)) as opened:
        assert opened.classifier.labels == ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize("make", [transformers_folder, timm_folder])
def test_round_trips_keep_every_bit(tmp_path, make):
    source = make(tmp_path / "source")
    with open_checkpoint(source) as opened:
        first, form = opened.classifier, opened.format
    record = convert(source, tmp_path / "ours", to="siglip_jax")
    convert(tmp_path / "ours", tmp_path / "back", to=form)
    with open_checkpoint(tmp_path / "ours") as ours, open_checkpoint(tmp_path / "back") as back:
        assert first.equals(ours.classifier) and first.equals(back.classifier)
    before, after = (read_weights(f / "model.safetensors") for f in (source, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert any(step.target == "classifier/kernel" for step in record.plan)
    assert record.dropped == {}


@pytest.mark.parametrize(
    ("make", "to"),
    [(transformers_folder, "npz"), (transformers_folder, "timm"), (timm_folder, "transformers")],
)
def test_a_format_without_a_place_for_it_is_refused(tmp_path, make, to):
    source = make(tmp_path / "source")
    place = tmp_path / ("x.npz" if to == "npz" else "x")
    with pytest.raises(ValueError, match=f"classifier of 3 classes .* {to} has no place") as error:
        convert(source, place, to=to, pad=1)
    assert "classifier=False" in str(error.value)
    with pytest.raises(ValueError, match="has no place"):
        plan(source, to)
    record = convert(source, place, to=to, pad=1, classifier=False)
    assert len([what for what in record.dropped.values() if "left out as asked" in what]) == 2
    assert len(plan(source, to, classifier=False)) == len(record.plan)


def test_a_dtype_holds_for_the_classifier_too(tmp_path):
    convert(timm_folder(tmp_path), tmp_path / "half", to="siglip_jax", dtype="float16")
    with open_checkpoint(tmp_path / "half") as opened:
        assert opened.classifier.kernel.dtype == np.float16


def test_it_is_never_taken_for_a_released_one(tmp_path):
    with open_checkpoint(transformers_folder(tmp_path)) as opened:
        assert opened.checkpoint is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id2label": {"0": "cat"}}, "the classifier has 3 classes, and 1 are named"),
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, r"id2label does not name the classes 0, 1"),
        ({"problem_type": "ranking"}, "problem_type is 'ranking', expected one of single_label"),
    ],
)
def test_a_card_that_does_not_fit(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        open_checkpoint(transformers_folder(tmp_path, **change))


def test_a_head_that_is_no_dense_layer(tmp_path):
    folder = timm_folder(tmp_path)
    items = read_weights(folder / "model.safetensors")
    del items["head.bias"]
    write_weights(folder / "model.safetensors", items)
    with pytest.raises(ValueError, match=r"the classifier is no dense layer with a bias: head\.w"):
        open_checkpoint(folder)


def test_save_and_load(tmp_path):
    model = loaded(timm_folder(tmp_path))
    siglip_jax.save(
        tmp_path / "saved",
        model.model,
        model.params,
        profile=model.profile,
        classifier=model.classifier,
    )
    assert siglip_jax.load(tmp_path / "saved").classifier.equals(model.classifier)
    card = json.loads((tmp_path / "saved" / "siglip_jax.json").read_text())
    assert card["classifier"]["labels"] == list(LABELS)


def test_a_model_without_a_classifier_says_so(tmp_path):
    with pytest.raises(ValueError, match="this model has no classifier; score images against"):
        siglip_jax.load("siglip_emoji").scorer(tokenizer=False).classify(np.zeros((1, 32, 32, 3)))
