"""A suite, run: its metrics, what is left of it, and what it refuses."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from job_inputs import contents
from pair_files import png
from paths import SUPPORT
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score
from suite_folders import NAMES, REGIONS, TARGETS, spoken, tiny

from siglip_jax.suites import run_suite, table
from siglip_jax.suites.comparison import cells

# Of the tiny model, whose context is of 8 tokens.
pytestmark = pytest.mark.filterwarnings("ignore:.* texts are longer than 8 tokens")
PROMPTS = ["my {}", "{}"]


@pytest.fixture(scope="module")
def whole(root, model, tmp_path_factory):
    """(result, folder) of the whole suite."""
    out = tmp_path_factory.mktemp("out") / "suite"
    return run_suite(tiny(), str(root), out, model=model), out


@pytest.fixture(scope="module")
def embedded(model):
    """Images by number, and the classes by the averaged prompts, in numpy."""
    scorer = model.scorer(batch_size=32, text_batch_size=32)
    zimg = np.asarray(scorer.embed_images([png(n) for n in range(len(TARGETS))]))
    rows = []
    for name in NAMES:
        z = np.asarray(scorer.embed_texts([prompt.format(name) for prompt in PROMPTS])).mean(0)
        rows.append(z / np.linalg.norm(z))
    return scorer, zimg, np.stack(rows)


def test_classification(whole, embedded):
    _, zimg, classes = embedded
    metrics = whole[0].results["folders"].metrics
    scores, target = zimg @ classes.T, np.array(TARGETS)
    best, order = scores.argmax(1), np.argsort(-scores, 1)
    expected = {
        "acc1": (best == target).mean(),
        "acc5": (order[:, :5] == target[:, None]).any(1).mean(),
        "mean_per_class_recall": balanced_accuracy_score(target, best),
        "f1_macro": f1_score(target, best, average="macro", labels=range(6), zero_division=0),
    }
    assert metrics == pytest.approx(expected)
    assert 0 < metrics["acc5"] < 1


def test_the_worst_group(whole, embedded):
    _, zimg, classes = embedded
    right = (zimg @ classes.T).argmax(1) == np.array(TARGETS)
    worst = min(right[np.array(REGIONS) == region].mean() for region in range(3))
    assert whole[0].results["tars"].metrics["acc_wg"] == pytest.approx(worst)


def test_several_classes_an_image(whole, embedded):
    _, zimg, classes = embedded
    scores = zimg @ classes.T
    targets = [
        [t == target or (n + t) % 5 == 0 for t in range(6)] for n, target in enumerate(TARGETS)
    ]
    expected = average_precision_score(np.array(targets), scores, average="macro")
    metrics = whole[0].results["several"].metrics
    assert metrics == {"mean_average_precision": pytest.approx(expected)}


def recalls(zimg, ztxt, owner):
    scores, owner = zimg @ ztxt.T, np.array(owner)
    images = np.argsort(-scores.T, 1)
    texts = owner[np.argsort(-scores, 1)]
    found = {}
    for k in (1, 5, 10):
        found[f"image_retrieval_recall@{k}"] = (images[:, :k] == owner[:, None]).any(1).mean()
        right = texts[:, :k] == np.arange(len(zimg))[:, None]
        found[f"text_retrieval_recall@{k}"] = right.any(1).mean()
    one = found["image_retrieval_recall@1"] + found["text_retrieval_recall@1"]
    return found | {"mean_recall@1": one / 2}


def test_retrieval(whole, embedded):
    scorer, zimg, _ = embedded
    # Tars are read one after the other.
    order = [n for shard in range(2) for n in range(7) if n % 2 == shard]
    texts = [f"{animal} {n}" for n in order for animal in ("dog", "cat")]
    ztxt = np.asarray(scorer.embed_texts(texts))
    expected = recalls(zimg[order], ztxt, [row for row in range(7) for _ in range(2)])
    assert whole[0].results["captions"].metrics == pytest.approx(expected)


def test_languages_are_averaged(whole, embedded):
    scorer, zimg, _ = embedded
    found = whole[0].results["spoken"]
    english = [text for n in range(6) for text in (f"dog {n}", f"a dog {n}")]
    german = [f"Hund {n}" for n in range(5)]
    expected = {
        "de": recalls(zimg[:5], np.asarray(scorer.embed_texts(german)), range(5)),
        "en": recalls(
            zimg[:6], np.asarray(scorer.embed_texts(english)), [n // 2 for n in range(12)]
        ),
    }
    assert found.languages.keys() == expected.keys()
    for language, metrics in expected.items():
        assert found.languages[language] == pytest.approx(metrics)
    mean = (expected["de"]["mean_recall@1"] + expected["en"]["mean_recall@1"]) / 2
    assert found.metrics["mean_recall@1"] == pytest.approx(mean)


def test_files_have_the_keys_of_clip_benchmark(whole):
    result, out = whole
    files = {path.stem: json.loads(path.read_text()) for path in (out / "metrics").iterdir()}
    assert files.keys() == result.results.keys() == {task.name for task in result.tasks}
    for name, plain in files.items():
        keys = ["dataset", "model", "pretrained", "task", "metrics", "language"]
        assert list(plain)[:6] == keys and plain["dataset"] == name
    assert files["folders"]["task"] == "zeroshot_classification"
    assert files["captions"]["task"] == "zeroshot_retrieval"
    assert files["spoken"]["language"] == "all"


def test_a_finished_suite_computes_nothing(whole, root):
    result, out = whole
    before = contents(out)

    def unwanted():
        raise AssertionError("the model was loaded")

    again = run_suite(tiny(), str(root), out, model=unwanted, name=result.model)
    assert again.results == dict(result.results) and again.code == 0
    assert contents(out) == before


def test_a_task_without_data_is_named_and_counted(whole, root, model):
    _, out = whole
    more = dataclasses.replace(tiny().tasks[0], name="nowhere", title="Nowhere", path="")
    suite = dataclasses.replace(tiny(), tasks=(*tiny().tasks, more))
    got = run_suite(suite, str(root), out, model=model)
    assert got.code == 2 and list(got.missing) == ["nowhere"]
    assert got.missing["nowhere"].startswith("no data: no folder wds_nowhere in ")
    (row,) = [row for row in table(got) if row.task == "nowhere"]
    assert row.ours is None and cells([row])[1][2] == "no data"
    assert run_suite(suite, str(root), out, model=model, only=["tars"]).code == 0


@pytest.mark.parametrize("what", ["suite", "data", "model", "templates", "files"])
def test_a_folder_of_something_else_is_refused(whole, root, model, tmp_path, what):
    _, out = whole
    suite, data, options = tiny(), str(root), {}
    other = model
    if what == "suite":
        suite, said = dataclasses.replace(suite, name="other"), "suite is 'tiny' there and 'other'"
    elif what == "data":
        spoken(tmp_path / "spoken")
        data, said = str(tmp_path), "data is '"
    elif what == "templates":
        options, said = {"templates": "clip_best"}, "templates is None there and 'clip_best' here"
    elif what == "model":
        params = dict(model.params) | {"b": model.params["b"] + 1}
        other = dataclasses.replace(model, params=params, name="another")
        said = f"the model is {model.name} there and another here"
    else:
        out = tmp_path
        (tmp_path / "letter.txt").write_text("Dear ..")
        said = "is not empty and holds no suite"
    with pytest.raises(ValueError, match="choose another") as caught:
        run_suite(suite, data, out, model=other, **options)
    assert said in str(caught.value)


def test_killed_five_times_it_gives_the_same(root, model_folder, whole, tmp_path):
    """In processes that are forked, so that jax is imported once."""
    out = tmp_path / "killed"
    script = SUPPORT / "killed_suites.py"
    command = [sys.executable, script, model_folder, root, out, "2,5,8,11,14"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    codes = [int(code) for code in ended.stdout.split()]
    assert codes == [-9] * 5 + [0], ended.stderr
    ours, theirs = contents(out), contents(whole[1])
    # The other folder is of more tasks.
    theirs = {
        name: data
        for name, data in theirs.items()
        if name.startswith(("metrics", "embeddings")) and re.search("tars|captions", name)
    }
    assert {name for name in ours if name.startswith(("metrics", "embed"))} == theirs.keys()
    assert len(theirs) > 12
    for name, data in theirs.items():
        if "manifest" not in name:
            assert ours[name] == data, name
    assert not list(out.rglob("*.tmp"))
