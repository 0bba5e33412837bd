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


def test_a_threshold(cli, model, index):
    argv = ("search", index, "a dog", "--model", model, "--json")
    hits = json.loads(cli(*argv)[1])["queries"][0]["hits"]
    best, last = (hits[n]["probability"] for n in (0, -1))
    assert best > last
    code, out, err = cli(*argv, "--threshold", (best + last) / 2)
    (result,) = json.loads(out)["queries"]
    kept = [hit for hit in hits if hit["probability"] >= (best + last) / 2]
    assert (code, result["hits"], result["left_out"]) == (0, kept, 3 - len(kept))
    assert err == [
        f"siglip-jax: a dog: {3 - len(kept)} of the 3 nearest are below --threshold "
        f"{(best + last) / 2:g} and left out"
    ]
    code, out, err = cli(*argv, "--threshold", 1)
    assert (code, json.loads(out)["queries"][0]["hits"]) == (0, [])
    assert err == [
        "siglip-jax: a dog: nothing reaches --threshold 1; the best is "
        f"{hits[0]['key']} with {best:.3g}"
    ]
    assert cli(*argv, "--threshold", 0)[2] == []
    assert cli(*argv, "--threshold", 0, "--top", 2)[2] == [
        "siglip-jax: a dog: all of the 2 nearest reach --threshold 0, and more may; "
        "--top finds them"
    ]


def test_combined_and_unwanted(cli, model, pictures, index):
    argv = ("search", index, "a dog", "a bird", "--model", model, "--not", "a cat", "a fish")
    scorer = siglip_jax.load(model).scorer()
    near = scorer.embed_images([str(pictures / name) for name in FILES])
    dog, bird, cat, fish = scorer.embed_texts(["a dog", "a bird", "a cat", "a fish"]) @ near.T
    expected = {
        "a dog": dog - (cat + fish) / 2,
        "a bird": bird - (cat + fish) / 2,
        "a dog + a bird": (dog + bird) / 2 - (cat + fish) / 2,
    }
    results = json.loads(cli(*argv, "--json")[1])["queries"]
    results += json.loads(cli(*argv, "--json", "--combine")[1])["queries"]
    assert [r["not"] for r in results] == 3 * [["a cat", "a fish"]]
    assert results[0]["text"] == "a dog" and results[2]["combined"] == ["a dog", "a bird"]
    for values, result in zip(expected.values(), results, strict=True):
        order = np.argsort(-values)
        assert [hit["key"] for hit in result["hits"]] == [FILES[n] for n in order]
        got = [hit["similarity"] for hit in result["hits"]]
        np.testing.assert_allclose(got, values[order], atol=1e-5)
        assert not any("probability" in hit for hit in result["hits"])
    out = cli(*argv, "--combine")[1]
    assert out.splitlines()[1].startswith("a dog + a bird - a cat - a fish\t1\t")


def test_where_hits_lie(cli, model, pictures, index, tmp_path, monkeypatch):
    manifest = json.loads((index / "manifest.json").read_text())
    manifest["source"]["origin"] = open_items([str(pictures)]).origin
    (index / "manifest.json").write_text(json.dumps(manifest))
    write_tar(tmp_path / "a.tar", [("x/1.png", (pictures / "b.png").read_bytes())])
    source = open_items(["a.tar"])
    embed(source, tmp_path / "t", model=siglip_jax.load(model))
    manifest = json.loads((tmp_path / "t" / "manifest.json").read_text())
    manifest["source"]["origin"] = source.origin
    (tmp_path / "t" / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    argv = ("search", index, "a dog", "--also", tmp_path / "t", "--model", model)
    code, out, _ = cli(*argv, "--json", "--sheet", "../s.html")
    hits = {hit["key"]: hit for hit in json.loads(out)["queries"][0]["hits"]}
    assert code == 0
    assert {key: hit["file"] for key, hit in hits.items()} == {
        **{name: str(pictures / name) for name in FILES},
        "a.tar/x/1": str(tmp_path / "a.tar"),
    }
    assert hits["a.tar/x/1"]["member"] == "x/1" and "member" not in hits["b.png"]
    page = (tmp_path / "s.html").read_text()
    for link in (*(f"pictures/{name}" for name in FILES), "a.tar"):
        assert page.count(f'<a href="{link}">') == 2


def test_near_duplicates(cli, model, pictures, tmp_path, monkeypatch):
    shutil.copy(pictures / "b.png", pictures / "sub" / "copy.png")
    embed(open_items([str(pictures)]), tmp_path / "i", model=siglip_jax.load(model))
    argv = ("search", "i", "--duplicates", "0.99999")
    code, out, err = cli(*argv, "--sheet", "s.html", "--images", pictures)
    lines = list(csv.reader(io.StringIO(out), dialect="excel-tab"))
    assert code == 0
    assert lines[0] == ["group", "key", "similarity", "file"]
    assert [line[:2] for line in lines[1:]] == [["1", "b.png"], ["1", "sub/copy.png"]]
    assert lines[1][3] == str(pictures / "b.png")
    said = "siglip-jax: 2 of 4 images are in 1 group of similarity 0.99999 or more"
    assert err == [said]
    assert (tmp_path / "s.html").read_text().count("<img") == 2
    result = json.loads(cli(*argv, "--json")[1])
    assert [[hit["key"] for hit in g] for g in result["groups"]] == [["b.png", "sub/copy.png"]]
    (pictures / "sub" / "copy.png").unlink()
    code, shown = command_line.on_a_terminal(monkeypatch, *argv)
    assert code == 0 and shown.splitlines()[0] == "group 1: 2 images"
    embed(open_items([str(pictures)]), tmp_path / "j", model=siglip_jax.load(model))
    code, out, err = cli("search", "j", "--duplicates", "0.99999", "--json")
    assert (code, json.loads(out)["groups"]) == (0, [])
    assert err[-1:] == ["siglip-jax: no two of 3 images have a similarity of 0.99999 or more"]


def test_refused_options(cli, model, pictures, index):
    cases = {
        ("--not", "a cat"): "--not: there is nothing to search for; give a QUERY before --not",
        ("a cat", "--not", "a cat"): "--not: 'a cat' is a QUERY as well; leave it out of one",
        ("a cat", "--not", " "): "--not: the text is empty",
        ("a cat", "--not", "no.png"): "no.png: no such file",
        ("a cat", "--combine"): "--combine: expected several QUERYs, got 1",
        ("a cat", "a cat", "--combine"): "--combine: expected several QUERYs, got 1",
        ("a cat", "--threshold", "50"): "--threshold: expected a number from 0 to 1, got '50'",
        ("a cat", "--threshold", "nan"): "--threshold: expected a number from 0 to 1, got 'nan'",
        ("a", "--not", "b", "--threshold", "0.5"): "a search with --not ranks by similarities",
        (pictures / "b.png", "--threshold", "0.5"): f"{index} holds images, and so is a QUERY",
        ("--duplicates", "95"): "--duplicates: expected a number from 0 to 1, got '95'",
        ("--duplicates", "1"): "--duplicates: expected a similarity between 0 and 1, such as",
        (
            "a cat",
            "--duplicates",
            "0.9",
        ): "--duplicates compares the rows with each other; leave out",
        ("--duplicates", "0.9", "--top", "3"): "with each other; leave out --top",
    }
    for argv, message in cases.items():
        code, out, err = cli("search", index, *argv, "--model", model)
        assert (code, out, len(err)) == (2, "", 1), argv
        assert message in err[0]
