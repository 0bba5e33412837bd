"""`score` without labels, of a model that has classes of its own; and the other commands."""

import json

import pyarrow.parquet as pq
import pytest
from classifier_folders import LABELS, timm_folder, transformers_folder
from PIL import Image

import siglip_jax
from siglip_jax.cli.main import main
from siglip_jax.converters import convert


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return transformers_folder(
        tmp_path_factory.mktemp("classes"), problem_type="multi_label_classification"
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for name, colour in (("red.png", (255, 0, 0)), ("blue.png", (0, 0, 255))):
        Image.new("RGB", (40, 40), colour).save(root / name)
    return root


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    """In our own format, which says its profile."""
    path = tmp_path_factory.mktemp("ours") / "classes"
    convert(folder, path, to="siglip_jax")
    return path


def test_its_own_classes(model, images, capsys):
    assert main(["score", str(images), "--model", str(model), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["classifier"] == "sigmoid"
    expected = siglip_jax.load(model).scorer().classify([images / "blue.png"])
    (blue,) = [row for row in said["images"] if row["image"].endswith("blue.png")]
    best = expected.top(1)[0][0]
    assert blue["scores"][0]["label"] == best.label
    assert blue["scores"][0]["probability"] == pytest.approx(best.probability, abs=1e-6)
    assert {hit["label"] for hit in blue["scores"]} == set(LABELS)


@pytest.mark.parametrize("top", [None, 2])
def test_a_bulk_job(model, images, tmp_path, top):
    options = ["--top", str(top)] if top else []
    out = tmp_path / "out"
    assert main(["score", str(images), "--model", str(model), "--out", str(out), *options]) == 0
    rows = pq.read_table(out / "data").to_pylist()
    expected = siglip_jax.load(model).scorer().classify([images / r["key"] for r in rows])
    for row, all_of_it, best in zip(rows, expected.probabilities, expected.top(top), strict=True):
        if top:
            assert row["labels"] == [hit.label for hit in best]
            assert row["probabilities"] == pytest.approx([h.probability for h in best], abs=1e-6)
        else:
            assert row["probabilities"] == pytest.approx(list(all_of_it), abs=1e-6)
    again = siglip_jax.jobs.score(str(images), tmp_path / "again", model=str(model), top=top)
    assert again.finished
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["job"]["labels"] == list(LABELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--template", "a {}"], "--template is for --labels; the model's own classes take none"),
        (["--labels", "a dog"], "is an image tower alone; scores need a text tower too"),
        (["--out", "o", "--top", "9"], "--top 9 is more than the 3 labels"),
    ],
)
def test_what_is_refused(model, images, capsys, monkeypatch, tmp_path, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["score", str(images), "--model", str(model), *options]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_show_names_the_classes(model, capsys):
    assert main(["show", str(model)]) == 0
    assert "3 classes (sigmoid of mean): cat, dog, donut" in capsys.readouterr().out


def test_convert_asks_for_an_option(folder, tmp_path, capsys):
    destination = str(tmp_path / "x.npz")
    assert main(["convert", str(folder), destination, "--to", "npz"]) == 2
    assert "give --no-classifier to convert the tower without it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(["convert", str(folder), destination, "--to", "npz", "--no-classifier"]) == 0


def test_a_tower_with_a_classifier_embeds(tmp_path, images, capsys):
    convert(timm_folder(tmp_path), tmp_path / "ours", to="siglip_jax")
    out = str(tmp_path / "x.npz")
    assert main(["embed", str(images), "--model", str(tmp_path / "ours"), "--out", out]) == 0
