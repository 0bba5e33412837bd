"""`siglip-jax evaluate`: the tasks beside retrieval and zero-shot accuracy."""

import argparse
import json
import warnings

import numpy as np
import pytest
from pictures import scene
from PIL import Image

import siglip_jax
from siglip_jax.cli.evaluation_output import print_measured
from siglip_jax.cli.options import task as options_of_tasks
from siglip_jax.converters import convert
from siglip_jax.evaluation import (
    Images,
    average_precision,
    caption_choice,
    class_embeddings,
    few_shot_accuracy,
    linear_probe,
    mean_over,
    neighbour_probe,
    recall_by_language,
)
from siglip_jax.evaluation.imagenet import IMAGENET_SETS

# pytest looks for fixtures among the names of a module.
pytestmark = pytest.mark.usefixtures("surroundings")
COUNT = 6
NAMES = [f"{i}.png" for i in range(COUNT)]


@pytest.fixture
def table(tmp_path):
    """Writes a table of rows (image, caption, further column), and its images if need be."""

    def write(name, rows, column="more"):
        for i, image in enumerate(NAMES):
            if not (tmp_path / image).exists():
                Image.fromarray(scene(40, 50 + i, seed=i)).save(tmp_path / image)
        head = ("image", "caption", column)
        lines = [dict(zip(head, (NAMES[row[0]], *row[1:]), strict=False)) for row in rows]
        (tmp_path / name).write_text("\n".join(map(json.dumps, lines)))
        return name

    return write


@pytest.fixture(scope="module")
def scorer(model):
    return siglip_jax.load(model).scorer()


@pytest.fixture
def measured(cli, model, scorer):
    """Runs a task; what --json says, and the embeddings of the images."""

    def run(*argv):
        code, out, err = cli("evaluate", *argv, "--model", model, "--json")
        assert code == 0, err
        return json.loads(out), scorer.embed_images(NAMES)

    return run


def test_choices_are_those_of_the_library():
    assert tuple(IMAGENET_SETS) == options_of_tasks.CLASS_NAMES


def test_several_labels(measured, scorer, table):
    rows = [(0, ["a", "b"]), (1, ["b"]), (2, ["c", "a"]), (3, ["c"]), (4, ["a"]), (5, ["b", "c"])]
    data = table("t.jsonl", rows)
    got, zimg = measured(data, "--task", "multilabel", "--template", "{}", "--template", "a {}")
    z = class_embeddings(scorer.embed_texts, ["a", "b", "c"], ["{}", "a {}"], aliases="none")
    labels = [[0, 1], [1, -1], [2, 0], [2, -1], [0, -1], [1, 2]]
    each = average_precision(zimg, z, labels)
    assert got["average_precision"] == dict(zip("abc", each, strict=True))
    assert got["metrics"] == {"mean_average_precision": each.mean()}
    assert (got["images"], got["classes"], got["labels"]) == (6, 3, 9)


LANGUAGES = [
    *((i, f"a{i}", "en") for i in range(6)),
    *((i, f"b{i}", "de") for i in range(4)),
    (0, "c", "de"),
]


def by_language(scorer, zimg):
    texts = [text for _, text, _ in LANGUAGES]
    owner, spoken = [row[0] for row in LANGUAGES], [row[2] for row in LANGUAGES]
    return recall_by_language(zimg, scorer.embed_texts(texts), owner, spoken)


def test_a_column_of_languages(measured, scorer, table):
    data = table("t.jsonl", LANGUAGES, "lang")
    got, zimg = measured(data, "--task", "multilingual", "--language-column", "lang")
    expected = by_language(scorer, zimg)
    assert {name: part["metrics"] for name, part in got["languages"].items()} == expected
    assert got["metrics"] == mean_over(expected)
    assert (got["languages"]["de"]["images"], got["languages"]["de"]["texts"]) == (4, 5)
    assert (got["images"], got["texts"]) == (6, 11)


def test_a_data_set_for_each_language(measured, scorer, table):
    for language in ("en", "de"):
        table(f"{language}.jsonl", [row for row in LANGUAGES if row[2] == language])
    got, zimg = measured("en=en.jsonl", "de=de.jsonl", "--task", "multilingual")
    expected = by_language(scorer, zimg)
    assert got["metrics"] == mean_over(expected) and got["data"] == ["en=en.jsonl", "de=de.jsonl"]
    assert got["images"] == 10  # those of both


def test_the_right_caption(measured, scorer, table, tmp_path):
    (tmp_path / "t.csv").write_text(
        "image,caption\n" + "".join(f"{i}.png,right {i}\n{i}.png,wrong {i}\n" for i in range(6))
    )
    table("unused.jsonl", [(0, "a")])
    got, zimg = measured("t.csv", "--task", "caption-choice")
    z = scorer.embed_texts([f"{what} {i}" for i in range(6) for what in ("right", "wrong")])
    expected = caption_choice(zimg, z, np.arange(6), np.repeat(np.arange(6), 2))
    assert got["metrics"] == expected and 0 < expected["text_accuracy"] <= 1
    assert (got["groups"], got["texts"], got["groups_left_out"]) == (6, 12, 0)


def test_groups_of_images(measured, scorer, table):
    rows = [(i, f"d{i}", f"g{i // 2}") for i in range(6)]
    got, zimg = measured(
        table("t.jsonl", rows, "set"), "--task", "caption-choice", "--group-column", "set"
    )
    z = scorer.embed_texts([f"d{i}" for i in range(6)])
    groups = np.repeat(np.arange(3), 2)
    assert got["metrics"] == caption_choice(zimg, z, groups, groups)
    assert "group_accuracy" in got["metrics"]


PROBED = [(i, ["cat", "dog"][i % 2]) for i in range(COUNT)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["linear-probe", "--seed", "1"], lambda *z: linear_probe(*z, seed=1).metrics),
        (["knn", "--neighbours", "2"], lambda *z: neighbour_probe(*z, neighbours=2).metrics),
        (
            ["fewshot", "--shots", "2"],
            lambda *z: {"accuracy": np.mean(few_shot_accuracy(*z, shots=2))},
        ),
    ],
)
def test_probes(measured, table, options, expected):
    train, test = table("train.jsonl", PROBED), table("test.jsonl", PROBED[1:4])
    got, zimg = measured(test, "--train", train, "--task", *options)
    labels = np.arange(COUNT) % 2
    assert got["metrics"] == expected(zimg, labels, zimg[1:4], labels[1:4])
    assert (got["images"], got["train_images"], got["classes"]) == (3, 6, 2)
    assert got["train"] == "train.jsonl" and got["probe"]


def test_a_probe_needs_an_image_tower_alone(cli, model, table, tmp_path):
    convert(model, tmp_path / "tower", to="timm")
    data = table("t.jsonl", PROBED)
    argv = ("evaluate", data, "--model", tmp_path / "tower", "--train", data)
    code, out, err = cli(*argv, "--task", "knn", "--neighbours", "1", "--json")
    assert (code, err) == (0, []) and json.loads(out)["metrics"]["accuracy"] == 1
    code, _, err = cli(*argv[:4], "--task", "retrieval")
    assert code == 2 and "text tower" in err[-1]


def test_names_and_indices_of_imagenet():
    """A name, and ImageNet's own numbers, of which -R has 1 and 2 as its first."""
    by_name, by_number, whole = (
        options_of_tasks.make_task(
            argparse.Namespace(
                task="zeroshot",
                data=["x"],
                class_names=classes,
                template=None,
                templates=None,
                as_written=False,
                any_caption=False,
            ),
            options_of_tasks.TaskData(None, [(text,) for text in captions], len(captions)),
        )
        for classes, captions in (
            ("imagenet_r", ["great white shark", "goldfish"]),
            ("imagenet_r", ["2", "1"]),
            ("imagenet", ["2", "1"]),
        )
    )
    z = np.eye(200, 3, dtype=np.float32)  # the classes', of which the first three count
    images = Images(z[[1, 0]], np.arange(2))
    assert by_name.classes == by_number.classes and len(whole.classes) == 1000
    for task, right in ((by_name, 1.0), (by_number, 1.0)):
        metrics, facts = task.measure(images, lambda texts: np.repeat(z, len(texts) // 200, 0))
        assert metrics["accuracy"] == right and facts["classes_without_images"] == 198
    z = np.eye(1000, 3, dtype=np.float32)
    metrics = whole.measure(images, lambda texts: np.repeat(z, len(texts) // 1000, 0)).metrics
    assert metrics["accuracy"] == 0  # 1 is the second of all


def test_any_caption(measured, scorer, table):
    data = table("t.jsonl", [(i, ["cat", "dog"]) for i in range(5)] + [(5, ["bird"])])
    argv = (data, "--task", "zeroshot", "--template", "{}")
    got, zimg = measured(*argv, "--any-caption")
    best = (zimg @ scorer.embed_texts(["cat", "dog", "bird"]).T).argmax(1)
    assert "mean_per_class_recall" not in got["metrics"]
    assert got["metrics"]["accuracy"] == np.mean([*(best[:5] < 2), best[5] == 2])


def test_ties_are_told(cli, model, table):
    long = "word " * 30
    data = table("t.jsonl", [(i, [f"{long}right {i}", f"{long}wrong {i}"]) for i in range(6)])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, err = cli("evaluate", data, "--model", model, "--task", "caption-choice")
    assert code == 0 and any("100.0% of the groups have something as near" in line for line in err)


def test_for_a_person(capsys):
    fixed = {"errors": [], "images": 12}
    recalls = {f"{way}_recall@{k}": k / 20 for way in ("img2txt", "txt2img") for k in (1, 5, 10)}
    part = {"images": 12, "texts": 12, "metrics": recalls}
    print_measured(fixed | {"texts": 24, "languages": {"de": part, "sw": part}, "metrics": recalls})
    print_measured(
        fixed
        | {"texts": 24, "groups": 1, "groups_left_out": 2}
        | {"metrics": {"text_accuracy": 0.5, "tied_groups": 0.0}}
    )
    print_measured(
        fixed
        | {"train_images": 1200, "classes": 3, "probe": {"strength": 0.01, "seed": 0}}
        | {"metrics": {"accuracy": 0.25, "mean_per_class_recall": 0.125}}
    )
    print_measured(
        fixed
        | {"classes": 9, "classes_without_images": 2, "templates": ["{}"]}
        | {"metrics": {"mean_average_precision": 0.5}}
    )
    assert capsys.readouterr().out.splitlines() == [
        "12 images, 24 captions",
        "recall     image to caption @1      @5     @10  caption to image @1      @5     @10",
        "de                       5.00%  25.00%  50.00%                5.00%  25.00%  50.00%",
        "sw                       5.00%  25.00%  50.00%                5.00%  25.00%  50.00%",
        "mean of 2                5.00%  25.00%  50.00%                5.00%  25.00%  50.00%",
        "12 images, 24 captions, 1 group (2 left out)",
        "caption of an image  50.00%",
        "12 images, 1,200 to learn from, 3 classes, strength 0.01",
        "accuracy               25.00%",
        "mean per-class recall  12.50%",
        "12 images, 9 classes (2 without images), '{}'",
        "mean average precision  50.00%",
    ]


GOOD = "two.jsonl --task "


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (GOOD + "retrieval --any-caption", "--any-caption is for --task zeroshot"),
        (GOOD + "zeroshot --train x", "--train is for --task linear-probe, knn or fewshot"),
        (GOOD + "knn --train two.jsonl --shots 3", "--shots is for --task fewshot"),
        (GOOD + "knn", "--task knn needs images to learn from: --train DATA"),
        ("a b --task retrieval", "--task retrieval takes one DATA, got 2"),
        (GOOD + "linear-probe --train two.jsonl --seed -1", "--seed must be 0 or more, got -1"),
        (GOOD + "multilingual", "two.jsonl: --task multilingual takes LANGUAGE=DATA for each"),
        ("de=no.jsonl --task multilingual", "no.jsonl: no such file or folder"),
        ("a b --task multilingual --language-column c", "--language-column is for one DATA"),
        (GOOD + "multilingual --language-column mor", "did you mean --language-column more?"),
        ("few.jsonl --task multilingual --language-column more", "3 captions and 2 languages"),
        (GOOD + "caption-choice", "image 0 has one caption alone, so nothing to choose from"),
        (GOOD + "caption-choice --group-column more", "group 'x' has one caption alone"),
        ("few.jsonl --task caption-choice --group-column more", "of the groups x and y; it can"),
        ("number.jsonl --task caption-choice --group-column more", "have no text in column more"),
        (GOOD + "multilabel --labels-file three.txt", "1 of 3 classes does not have an image: 'c'"),
        ("one.jsonl --task zeroshot", "one.jsonl: 'a' is one class alone"),
        (GOOD + "zeroshot --class-names imagenet", "imagenet: 2 of 2 images are of a class that"),
        ("number.jsonl --task zeroshot --class-names imagenet_a", "imagenet_a, such as 0"),
        (GOOD + "zeroshot --class-names imagenet --labels-file x", "not allowed with argument"),
        (GOOD + "knn --train one.jsonl", "1 classes of the test data have no image to learn from"),
        (GOOD + "knn --train two.jsonl --labels-file three.txt", "not have an image to learn from"),
        (GOOD + "fewshot --train two.jsonl", "2 of 2 classes have fewer than 10 images to learn"),
        (GOOD + "linear-probe --train two.jsonl", "every class has one training image alone"),
        ("bare.jsonl --task zeroshot", "1 of 2 pairs have no caption: 1.png"),
        (GOOD + "knn --train no/", "no/: no such file or folder"),
    ],
)
def test_bad_input(cli, model, table, tmp_path, argv, message):
    table("two.jsonl", [(0, "a", "x"), (1, "b", "y")])
    table("one.jsonl", [(0, "a"), (1, "a")])
    table("bare.jsonl", [(0, "a"), (1, "")])
    table("few.jsonl", [(0, ["a", "b", "c"], ["x", "y"])])
    table("number.jsonl", [(0, "0", 5), (1, "1", 6)])
    (tmp_path / "three.txt").write_text("a\nb\nc")
    code, out, err = cli("evaluate", *argv.split(), "--model", model)
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0] and err[0].startswith("siglip-jax")
