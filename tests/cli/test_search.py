"""`siglip-jax search`."""

import csv
import io
import json
import shutil

import command_line
import numpy as np
import pytest
import shapes
from pair_files import write_tar

import siglip_jax
from siglip_jax.data import TextStrings, open_items
from siglip_jax.jobs import embed

cli, model, pictures, surroundings, compiled_once = (
    command_line.cli,
    command_line.model,
    command_line.pictures,
    command_line.surroundings,
    shapes.compiled_once,
)
pytestmark = pytest.mark.usefixtures("surroundings", "compiled_once")
FILES = ("a.PNG", "b.png", "sub/c.png")


@pytest.fixture
def index(model, pictures, tmp_path):
    source = open_items([str(pictures)])
    embed(source, tmp_path / "index", model=siglip_jax.load(model))
    return tmp_path / "index"


def nearest(model, pictures, z):
    """Names and similarities, nearest first."""
    scorer = siglip_jax.load(model).scorer()
    near = scorer.embed_images([str(pictures / name) for name in FILES]) @ z(scorer)
    return [(FILES[n], near[n]) for n in np.argsort(-near)]


def test_a_pipe(cli, model, pictures, index):
    code, out, err = cli("search", index, "a dog", "a cat", "--model", model, "--top", 2)
    assert (code, err) == (0, [])
    lines = list(csv.reader(io.StringIO(out), dialect="excel-tab"))
    assert lines[0] == ["query", "rank", "key", "similarity", "probability"]
    assert [line[:2] for line in lines[1:]] == [
        ["a dog", "1"],
        ["a dog", "2"],
        ["a cat", "1"],
        ["a cat", "2"],
    ]
    expected = nearest(model, pictures, lambda s: s.embed_texts(["a cat"])[0])
    assert [line[2] for line in lines[3:]] == [key for key, _ in expected[:2]]
    np.testing.assert_allclose(
        [float(li[3]) for li in lines[3:]], [s for _, s in expected[:2]], atol=1e-5
    )
    params = siglip_jax.load(model).params
    logit = np.exp(params["t"][0]) * expected[0][1] + params["b"][0]
    assert float(lines[3][4]) == pytest.approx(float(1 / (1 + np.exp(-logit))), rel=1e-3)


def test_json_of_a_picture(cli, model, pictures, index):
    query = pictures / "b.png"
    code, out, _ = cli("search", index, query, "--model", model, "--json")
    result = json.loads(out)
    assert (code, result["index"], result["model"], result["profile"]) == (
        0,
        str(index),
        "m",
        "big_vision",
    )
    hits = result["queries"][0]["hits"]
    assert result["queries"][0]["image"] == str(query)
    assert len(hits) == 3 and hits[0]["key"] == "b.png"
    assert hits[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert "probability" not in hits[0]


def test_a_terminal(model, index, monkeypatch):
    argv = ("search", index, "a dog", "--model", model, "--top", 1)
    code, shown = command_line.on_a_terminal(monkeypatch, *argv)
    lines = shown.splitlines()
    assert code == 0 and lines[0] == "a dog" and len(lines) == 2
    assert lines[1].split()[0] == "1" and lines[1].rstrip().endswith(("png", "PNG"))


def test_a_sheet(cli, model, pictures, index, tmp_path):
    argv = ("search", index, "a dog", "--model", model, "--sheet")
    assert cli(*argv, "s.html", "--images", pictures)[0] == 0
    assert (tmp_path / "s.html").read_text().count("<img") == 3
    shutil.rmtree(pictures)
    manifest = json.loads((index / "manifest.json").read_text())
    manifest["source"].pop("origin", None)
    (index / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = cli(*argv, "t.html")
    assert code == 0
    assert err == ["siglip-jax: 3 of 3 images were not found again; --images says where they are"]
    assert "<img" not in (tmp_path / "t.html").read_text()
    code, _, err = cli(*argv, "t.jpg")
    assert (code, err) == (
        2,
        ["siglip-jax: error: a sheet must end in .png or .html, got t.jpg"],
    )


def test_pictures_in_a_tar_are_found_again(cli, model, pictures, tmp_path):
    members = [(f"{n}.png", (pictures / name).read_bytes()) for n, name in enumerate(FILES)]
    write_tar(tmp_path / "a.tar", members)
    source = open_items(["a.tar"])
    embed(source, tmp_path / "tars", model=siglip_jax.load(model))
    manifest = json.loads((tmp_path / "tars" / "manifest.json").read_text())
    manifest["source"]["origin"] = source.origin
    (tmp_path / "tars" / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = cli("search", "tars", "a dog", "--model", model, "--sheet", "s.html")
    assert (code, err) == (0, [])
    assert (tmp_path / "s.html").read_text().count("<img") == 3


def test_export_alone_needs_no_model(cli, index, tmp_path):
    code, out, err = cli("search", index, "--export", "npy:x.npy")
    assert (code, out, err) == (0, "", ["siglip-jax: 3 rows in x.npy"])
    assert np.load(tmp_path / "x.npy").shape == (3, 24)


def test_an_index_of_texts(cli, model, pictures, tmp_path):
    loaded = siglip_jax.load(model)
    embed(TextStrings(["a dog", "a cat"]), tmp_path / "t", model=loaded, what="texts")
    argv = ("search", "t", "a cat", pictures / "b.png", "--model", model, "--json")
    text, image = json.loads(cli(*argv)[1])["queries"]
    assert text["hits"][0]["text"] == "a cat" and "probability" not in text["hits"][0]
    assert "probability" in image["hits"][0]


def test_refusals(cli, model, index, tmp_path):
    cases = {
        (index,): "there is nothing to search for; give a QUERY or --export",
        (
            index,
            "--export",
            "npy",
        ): "--export: expected FORMAT:FILE, such as faiss:x.faiss, got npy",
        (tmp_path / "x", "a dog"): "holds no output of a job: there is no manifest.json",
        (index, "a dog"): f"{index} was made with m: ",
        (index, "a dog", "--model", "siglip_emoji"): "and this is another model: its weights",
    }
    for argv, message in cases.items():
        code, out, err = cli("search", *argv)
        assert (code, out, len(err)) == (2, "", 1)
        assert message in err[0]
    manifest = json.loads((index / "manifest.json").read_text())
    manifest["space"]["profile"]["image"]["res"] = 99
    (index / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = cli("search", index, "a dog", "--model", model)
    assert (code, len(err)) == (2, 1)
    assert "and this is another model: its profile differs; give --model, --profile" in err[0]
