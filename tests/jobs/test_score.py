"""Scoring in bulk, with few labels, with many, and in pairs."""

import json

import numpy as np
import pytest
from job_inputs import Told, picture, pictures, table
from saved_model import saved
from tolerances import LOGIT_RELATIVE

import siglip_jax
from siglip_jax.data.item import Item
from siglip_jax.jobs import labels as label_embeddings
from siglip_jax.jobs import read_manifest, score

pytestmark = pytest.mark.usefixtures("compiled_once")
LABELS = ["cat", "dog", "red", "a", "cat"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


def columns(folder, *names):
    rows = table(folder)
    return [rows.column(name).to_pylist() for name in names]


def test_all_probabilities(model, tmp_path):
    source, templates = pictures(6), ["a {}", "{}s"]
    source.items[2] = Item("bad", b"hello")
    result = score(
        *(source, tmp_path / "out"),
        model=model,
        labels=LABELS,
        templates=templates,
        max_error_share=1,
    )
    assert result.finished and result.errors == 1
    got = columns(tmp_path / "out", "probabilities")[0]
    assert got[2] is None
    images = [item.image for i, item in enumerate(source.items) if i != 2]
    expected = model.scorer().score(images, LABELS, templates).probabilities
    np.testing.assert_allclose([row for row in got if row], expected, rtol=1e-5)
    about = json.loads(table(tmp_path / "out").schema.metadata[b"siglip_jax"])
    assert about["labels"] == LABELS
    assert read_manifest(tmp_path / "out").job["templates"] == templates


def test_the_best_labels_of_all(model, tmp_path):
    source = pictures(6)
    score(source, tmp_path / "out", model=model, labels=LABELS, top=4)
    names, p, logits = columns(tmp_path / "out", "labels", "probabilities", "logits")
    expected = model.scorer().score([item.image for item in source.items], LABELS)
    order = expected.ranking(4)
    assert names == [[LABELS[j] for j in row] for row in order]
    best = np.take_along_axis(expected.logits, order, axis=1)
    np.testing.assert_allclose(logits, best, rtol=0, atol=LOGIT_RELATIVE * np.abs(best).max() * 4)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-np.array(logits))), rtol=1e-5)


def test_many_labels_kept_on_devices_or_streamed(model, tmp_path, monkeypatch):
    monkeypatch.setattr(label_embeddings, "CHUNK", 16)
    labels = [f"{a} {b}" for a in ("red", "blue", "big") for b in range(13)]
    source = pictures(5)
    for name, memory in (("kept", None), ("streamed", 100)):
        result = score(
            *(source, tmp_path / name), model=model, labels=labels, top=5, label_memory=memory
        )
        assert result.finished
        assert len(list((tmp_path / name / "labels").iterdir())) == 3
    kept, streamed = (columns(tmp_path / n, "labels", "logits") for n in ("kept", "streamed"))
    assert kept == streamed
    expected = model.scorer().score([item.image for item in source.items], labels)
    assert kept[0] == [[labels[j] for j in row] for row in expected.ranking(5)]


def test_embeddings_of_labels_are_not_computed_again(model, tmp_path, monkeypatch):
    source = pictures(8)
    score(source, tmp_path / "out", model=model, labels=LABELS, top=2)
    (tmp_path / "out/summary.json").unlink()
    (tmp_path / "out/ledger/00001.json").unlink()
    before = columns(tmp_path / "out", "labels", "logits")
    monkeypatch.setattr("siglip_jax.scoring.Scorer.embed_texts", None)
    assert score(source, tmp_path / "out", model=model, labels=LABELS, top=2).run["items"] == 4
    assert columns(tmp_path / "out", "labels", "logits") == before


def test_pairs(model, tmp_path):
    texts = ["a cat", "a dog", "a donut", "red", "blue"]
    items = [Item(str(i), picture(i), text) for i, text in enumerate(texts)]
    items += [Item("5", picture(5)), Item("6", b"hello", "text")]
    score(Told(items, 3), tmp_path / "out", model=model, pairs=True, max_error_share=1)
    logits, p, errors = columns(tmp_path / "out", "logit", "probability", "error")
    expected = np.diag(model.scorer().score([item.image for item in items[:5]], texts).logits)
    np.testing.assert_allclose(logits[:5], expected, rtol=LOGIT_RELATIVE * 4)
    np.testing.assert_allclose(p[:5], 1 / (1 + np.exp(-expected)), rtol=1e-5)
    assert logits[5:] == [None, None]
    assert errors[5:] == ["there is no text", "not an image in a known format"]


def test_refused(model, tmp_path):
    many = [str(i) for i in range(4097)]
    for wrong, said in (
        ({"labels": many}, r"4,097 labels are as many numbers an image, more than 4,096; ask for"),
        ({"labels": []}, "the list of labels is empty; give at least one"),
        ({"labels": ["a", " "]}, r"labels\[1\] is empty"),
        ({"labels": "a cat"}, "labels must be a list of strings, got the string 'a cat'"),
        ({"labels": ["a"], "top": 2}, r"top must lie in 1\.\.1, the number of labels, got 2"),
        ({"labels": ["a"], "templates": ["x"]}, r"template 'x' must hold \{\} once"),
        ({"labels": ["a"], "pairs": True}, "labels are for scoring images; leave them out"),
    ):
        with pytest.raises(ValueError, match=said):
            score(pictures(1), tmp_path / "out", model=model, **wrong)
    score(pictures(1), tmp_path / "out", model=model, labels=["a", "b"])
    for change, named in (
        ({"labels": ["a", "c"]}, "the labels differ"),
        ({"templates": ["a {}"]}, r"job\.templates is \['\{\}'\] there and \['a \{\}'\] here"),
        ({"top": 1}, r"job\.top is None there and 1 here"),
    ):
        with pytest.raises(ValueError, match=f"out holds another job: {named}"):
            score(pictures(1), tmp_path / "out", model=model, **{"labels": ["a", "b"]} | change)
