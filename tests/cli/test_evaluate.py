"""`siglip-jax evaluate`."""

import json
import os
import warnings

import pytest
from command_line import on_a_terminal, shell
from pictures import scene
from PIL import Image

import siglip_jax
from siglip_jax.cli.evaluation_output import print_measured
from siglip_jax.cli.options import task as options_of_tasks
from siglip_jax.evaluation import (
    TEMPLATES,
    class_embeddings,
    mean_per_class_recall,
    nearest_classes,
    recall,
    zero_shot_accuracy,
)
from siglip_jax.regular_file import read_regular

# pytest looks for fixtures among the names of a module.
pytestmark = pytest.mark.usefixtures("surroundings")
CAPTIONS = [
    ["A cat.", "two cats", "a dog"],
    ["a donut"],
    ["A cat.", "a cat on a dog"],
    ["a dog, and a cat"],
    ["a dog"],
]


@pytest.fixture
def data(tmp_path):
    """Five pictures with captions; the first captions are four classes."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i, captions in enumerate(CAPTIONS):
        Image.fromarray(scene(40, 50 + i, seed=i)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("\n".join(captions))
    return folder


def embedded(model, folder):
    scorer = siglip_jax.load(model).scorer()
    return scorer, scorer.embed_images([folder / f"{i}.png" for i in range(len(CAPTIONS))])


def zero_shot(zimg, classes, labels):
    nearest = nearest_classes(zimg, classes)[:, 0]
    found = {"mean_per_class_recall": mean_per_class_recall(nearest, labels)}
    return zero_shot_accuracy(zimg, classes, labels) | found


def test_templates_are_those_of_the_library():
    assert tuple(TEMPLATES) == options_of_tasks.TEMPLATES


def test_retrieval(cli, model, data):
    code, out, err = cli("evaluate", data, "--model", model, "--task", "retrieval", "--json")
    got = json.loads(out)
    assert (code, err, got["errors"]) == (0, [], [])
    assert {name: got[name] for name in ("model", "profile", "dtype", "task", "data")} == {
        "model": "m",
        "profile": "big_vision",
        "dtype": "float32",
        "task": "retrieval",
        "data": str(data),
    }
    assert (got["images"], got["texts"]) == (5, 8)
    scorer, zimg = embedded(model, data)
    texts = [caption for captions in CAPTIONS for caption in captions]
    owner = [i for i, captions in enumerate(CAPTIONS) for _ in captions]
    assert got["metrics"] == recall(zimg, scorer.embed_texts(texts), owner)
    assert got["metrics"]["img2txt_recall@5"] > 0 and got["metrics"]["txt2img_recall@1"] < 1


def test_retrieval_for_a_person(monkeypatch, cli, model, data):
    argv = ("evaluate", data, "--model", model, "--task", "retrieval")
    code, out = on_a_terminal(monkeypatch, *argv)
    assert code == 0
    first, head, *rows = out.splitlines()
    assert first == "5 images, 8 captions"
    assert head.split() == ["recall", "@1", "@5", "@10"]
    metrics = json.loads(cli(*argv, "--json")[1])["metrics"]
    for row, name in zip(rows, ("img2txt", "txt2img"), strict=True):
        assert row.split()[3:] == [f"{metrics[f'{name}_recall@{k}']:.2%}" for k in (1, 5, 10)]
    assert [row[:16] for row in rows] == ["image to caption", "caption to image"]


# In the order in which they first appear.
CLASSES, LABELS = ["A cat.", "a donut", "a dog, and a cat", "a dog"], [0, 1, 0, 2, 3]


@pytest.mark.parametrize(
    ("options", "templates", "names"),
    [
        ([], TEMPLATES["clip_paper"], ["a cat", "a donut", "a dog and a cat", "a dog"]),
        (["--templates", "clip_best"], TEMPLATES["clip_best"], None),
        (["--template", "a {}!", "--template", "{}s"], ["a {}!", "{}s"], None),
        (["--templates", "class_name_only", "--as-written"], ["{}"], CLASSES),
    ],
)
@pytest.mark.filterwarnings("ignore:.* texts are longer")
def test_zero_shot(cli, model, data, options, templates, names):
    argv = ("evaluate", data, "--model", model, "--task", "zeroshot", "--json", *options)
    code, out, _ = cli(*argv)
    got = json.loads(out)
    assert code == 0 and got["errors"] == []
    assert (got["images"], got["classes"], got["templates"]) == (5, 4, list(templates))
    assert got["as_written"] is ("--as-written" in options)
    scorer, zimg = embedded(model, data)
    names = names or [name.replace(",", "") for name in CLASSES]
    z = class_embeddings(
        scorer.embed_texts, names, templates, canonical=not got["as_written"], aliases="none"
    )
    assert got["metrics"] == zero_shot(zimg, z, LABELS)


def test_zero_shot_with_a_file_of_classes(cli, model, data, tmp_path):
    argv = ("evaluate", data, "--model", model, "--task", "zeroshot", "--template", "{}", "--json")
    more = ["a plane", *CLASSES[::-1], "a train", "a tree"]
    (tmp_path / "classes.txt").write_text("\n".join(more))
    code, out, err = cli(*argv, "--labels-file", "classes.txt")
    got = json.loads(out)
    assert (code, err, got["classes"]) == (0, [], 7)
    scorer, zimg = embedded(model, data)
    z = class_embeddings(scorer.embed_texts, more, ["{}"], aliases="none")
    labels = [more.index(CLASSES[label]) for label in LABELS]
    assert got["metrics"] == zero_shot(zimg, z, labels)


def test_zero_shot_for_a_person(capsys):
    result = {"task": "zeroshot", "images": 1595, "classes": 40, "templates": ["a {}"]}
    result["errors"] = []
    result["metrics"] = {"accuracy": 0.64127, "top5_accuracy": 1.0}
    print_measured(result)
    print_measured(result | {"templates": ["a {}", "{}"]})
    errors = {"errors": [{}] * 3, "images": 1592}
    print_measured(result | errors)
    out = capsys.readouterr().out.splitlines()
    assert out.pop(6) == "1,592 images (3 more cannot be read), 40 classes, 'a {}'"
    assert out == [
        "1,595 images, 40 classes, 'a {}'",
        "accuracy        64.13%",
        "right among 5  100.00%",
        "1,595 images, 40 classes, 2 templates",
        "accuracy        64.13%",
        "right among 5  100.00%",
        "accuracy        64.13%",
        "right among 5  100.00%",
    ]


def test_names_that_become_one(cli, data):
    (data / "4.txt").write_text("a cat")
    argv = ("evaluate", data, "--model", "none.npz", "--task", "zeroshot")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli(*argv)[2][0] == (
            "siglip-jax: warning: 1 names stand for several classes once capitals and punctuation "
            "are removed, such as 'a cat'; --as-written keeps these apart"
        )
        (line,) = cli(*argv, "--as-written")[2]
        assert "none.npz does not exist" in line


@pytest.mark.parametrize("task", ["retrieval", "zeroshot"])
def test_pictures_that_cannot_be_read_are_left_out(cli, model, data, monkeypatch, task):
    argv = ("evaluate", data, "--model", model, "--task", task, "--json")
    argv += ("--template", "{}") if task == "zeroshot" else ()
    (data / "1.png").write_text("hello")

    def read(path):
        if str(path).endswith("3.png"):
            raise PermissionError(13, "Permission denied")
        return read_regular(path)

    monkeypatch.setattr("siglip_jax.data.storage.read_regular", read)
    code, out, err = cli(*argv)
    assert (code, out, len(err)) == (2, "", 3)
    assert err[2].startswith("siglip-jax: error: 2 of 5 images (40.0%) cannot be read, more than")
    assert err[2].endswith("; a larger --max-error-share allows more")
    code, out, err = cli(*argv, "--max-error-share", "0.4")
    got = json.loads(out)
    assert code == 0 and got["images"] == 3
    assert [error["error"] for error in got["errors"]] == [
        "1.png: not an image in a known format",
        f"{data / '3.png'}: cannot be read: Permission denied",
    ]
    assert sorted(err) == sorted(f"siglip-jax: error: {error['error']}" for error in got["errors"])
    monkeypatch.undo()
    os.chdir(data.parent)
    scorer, good = siglip_jax.load(model).scorer(), [0, 2, 4]
    zimg = scorer.embed_images([data / f"{i}.png" for i in good])
    if task == "zeroshot":
        # The classes of what is lost stay among the candidates.
        z = class_embeddings(scorer.embed_texts, CLASSES, ["{}"], aliases="none")
        assert got["classes"] == 4
        expected = zero_shot(zimg, z, [LABELS[i] for i in good])
    else:
        texts = [caption for i in good for caption in CAPTIONS[i]]
        owner = [row for row, i in enumerate(good) for _ in CAPTIONS[i]]
        expected = recall(zimg, scorer.embed_texts(texts), owner)
    assert got["metrics"] == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("data", "say what is measured: --task TASK, or --suite NAME"),
        ("data --task rank", "argument --task: invalid choice: 'rank'"),
        ("data --task retreival", "; did you mean retrieval?"),
        ("data --task retrieval --templates clip_best", "--templates is for --task zeroshot"),
        ("data --task retrieval --as-written", "--as-written is for --task zeroshot"),
        ("data --task retrieval --labels-file x", "--labels-file is for --task zeroshot"),
        ("data --task zeroshot --templates clip", "--templates: invalid choice: 'clip'"),
        ("data --task zeroshot --template x --templates clip_best", "not allowed with argument"),
        ("data --task zeroshot --template photo", "template 'photo' must hold {} once"),
        ("dato --task retrieval", "dato: no such file or folder; did you mean data?"),
        (
            "data --task zeroshot --labels-file few.txt",
            "few.txt: 2 of 5 images are of a class "
            "that is not there, such as 'A cat.'; did you mean that by 'A cat'?",
        ),
        ("data --task zeroshot --labels-file twice.txt", "twice.txt: the class 'a dog' is there"),
        ("data --task zeroshot --labels-file none.txt", "none.txt: no such file or folder"),
        ("bad --task retrieval", "bad: none of the 2 images can be read"),
    ],
)
def test_bad_input(cli, model, data, tmp_path, argv, message):
    (tmp_path / "few.txt").write_text("A cat\na donut\na dog\na dog, and a cat")
    (tmp_path / "twice.txt").write_text("a dog\na cat\na dog")
    (tmp_path / "bad").mkdir()
    for name in "ab":
        (tmp_path / "bad" / f"{name}.png").write_text("hello")
        (tmp_path / "bad" / f"{name}.txt").write_text("a dog")
    code, out, err = cli("evaluate", *argv.split(), "--model", model)
    assert (code, out) == (2, "")
    assert message in err[-1] and err[-1].startswith("siglip-jax")
    assert len(err) == (3 if argv.startswith("bad") else 1)


def test_nothing_is_imported_before_it_runs():
    code = "import sys, siglip_jax.cli.commands.evaluate as e; assert 'jax' not in sys.modules"
    shell("-c", code)
