"""`siglip-jax explain`: a file, lines, JSON, and what is refused."""

import json
from pathlib import Path

import command_line
import numpy as np
import pytest
import shape_scenes
from PIL import Image

import siglip_jax
from siglip_jax.cli.commands import explain
from siglip_jax.converters import convert
from siglip_jax.explain import METHODS

model = command_line.model
pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture
def scene(tmp_path):
    (made,) = shape_scenes.held_out(1)
    Image.fromarray(made.image).save(tmp_path / "scene.png")
    return made


def test_a_page_and_lines(cli, scene):
    first, second = scene.captions
    argv = ["explain", "scene.png", "--model", shape_scenes.MODEL, "--out", "why.html"]
    code, out, err = cli(*argv, "--label", first, "--label", second)
    assert (code, err) == (0, ["siglip-jax: written to why.html"])
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0] == ["label", "probability", "logit", "row", "column"]
    assert [line[0] for line in lines[1:]] == [first, second]
    assert all(0 <= int(place) < 8 for line in lines[1:] for place in line[3:])
    assert first in Path("why.html").read_text("utf-8")


def test_json_has_the_maps(cli, scene):
    argv = ["explain", "scene.png", "--model", shape_scenes.MODEL, "--out", "why.png", "--json"]
    argv += ["--method", "similarity", "--labels", *scene.captions]
    code, out, err = cli(*argv)
    assert (code, err) == (0, [])
    told = json.loads(out)
    scorer = siglip_jax.load(shape_scenes.MODEL).scorer(batch_size=1, text_batch_size=2)
    made = scorer.explain("scene.png", scene.captions, method="similarity")
    maps = [row["map"] for row in told["labels"]]
    np.testing.assert_allclose(maps, made.maps, rtol=1e-4, atol=1e-4)
    assert told["method"] == "similarity" and told["grid"] == [8, 8]
    assert np.shape(told["attention"]) == (4, 8, 8)
    assert told["labels"][0]["peak"] == list(made.peak(0))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--label '' --out w.png", "--label: the text is empty"),
        ("--out w.png", "there is no label; give --label or --labels-file"),
        ("--label cat", "the following arguments are required: --out"),
        ("--label cat --out w.pgn", "--out: expected a name that ends in .png or .html, got w.pgn"),
        ("--label cat --out no/w.png", "--out: cannot write no/w.png: the folder no does not"),
        ("--label cat --out w.png --method gradent", "; did you mean gradient?"),
        (
            "--label cat --out w.png --method similarity --steps 4",
            "--steps is for --method integrated",
        ),
    ],
)
def test_what_is_refused(cli, scene, tmp_path, argv, message):
    words = [word.strip("'") for word in argv.split()]
    code, out, err = cli("explain", "scene.png", "--model", shape_scenes.MODEL, *words)
    assert (code, out) == (2, "") and message in err[-1]
    assert not list(tmp_path.glob("w.*"))


def test_images_that_cannot_be_read(cli, scene, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    for name, message in (
        ("scen.png", "scen.png: no such file; did you mean scene.png?"),
        ("notes.png", "notes.png: not an image in a known format"),
        (".", ".: is a folder; give an image"),
    ):
        argv = ["explain", name, "--model", shape_scenes.MODEL, "--label", "a", "--out", "w.png"]
        code, out, err = cli(*argv)
        assert (code, out) == (2, "") and message in err[-1]
    assert not (tmp_path / "w.png").exists()


def test_an_image_tower_alone(cli, scene, model):
    convert(model, "tower", to="siglip_jax", tower="image")
    argv = ["explain", "scene.png", "--model", "tower", "--label", "a", "--out", "w.png"]
    code, _, err = cli(*argv)
    assert code == 2
    assert "is an image tower alone; explanations need a text tower too" in err[-1]


def test_the_methods_are_those_of_the_package():
    assert explain.METHODS == METHODS
