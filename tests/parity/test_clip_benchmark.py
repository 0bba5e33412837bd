"""Our metrics beside CLIP_benchmark's, each of whose evaluations is run as a whole.

Its models are stand-ins that hand out the embeddings that ours are given too: synthetic ones,
and those of the bundled model. Needs the `parity` extra.
"""

import csv
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from suite_folders import tiny, write

import siglip_jax
from siglip_jax.data import captions_of, items_of, open_pairs
from siglip_jax.evaluation import (
    CaptionChoice,
    Images,
    MultiLabel,
    Retrieval,
    ZeroShot,
    linear_probe,
    mean_per_class_recall,
    nearest_classes,
    recall,
)
from siglip_jax.programs import make_mesh
from siglip_jax.suites import run_suite

torch = pytest.importorskip("torch", reason="run `make parity`")
pytest.importorskip("clip_benchmark", reason="run `make parity`")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, at import
    from clip_benchmark.metrics import (
        image_caption_selection,
        zeroshot_classification,
        zeroshot_retrieval,
    )
    from clip_benchmark.metrics import (
        linear_probe as their_probe,
    )


def scalar(value):
    """As `float`, also of arrays with one element in one axis, which numpy from 2.4 on refuses."""
    return float(np.asarray(value).reshape(()))


# Its `accuracy` has that from older versions of numpy.
vars(zeroshot_classification)["float"] = scalar

# CLIP_benchmark is not ours to fix; ours stays under the suite's own rule everywhere else.
pytestmark = pytest.mark.filterwarnings("ignore")
EMOJI = Path(__file__).parents[1] / "fixtures" / "emoji_heldout.parquet"
N, CLASSES = 160, 12


class Case(types.SimpleNamespace):
    """Embeddings of N images, and what makes those of texts.

    Attributes:
      zimg: (N, d).
      names: of each image; synthetic ones have CLASSES in all.
      encode: strings to embeddings (n, d).
    """


def synthetic():
    rng = np.random.default_rng(0)
    known = {}

    def encode(texts):
        for text in texts:
            z = rng.standard_normal(48).astype(np.float32)
            known.setdefault(text, z / np.linalg.norm(z))
        return np.stack([known[text] for text in texts])

    names = [f"class {index}" for index in [*range(CLASSES), *rng.integers(0, CLASSES, N)][:N]]
    zimg = encode(names) + rng.standard_normal((N, 48)).astype(np.float32) * 0.35
    return Case(zimg=zimg / np.linalg.norm(zimg, axis=1, keepdims=True), names=names, encode=encode)


def bundled():
    scorer = siglip_jax.load("siglip_emoji").scorer()
    pairs = open_pairs(str(EMOJI))
    # Emoji of people: who, and of which skin tone.
    firsts = [own[0] for own in captions_of(pairs)]
    rows = [row for row, text in enumerate(firsts) if text.endswith(" skin tone")][:N]
    names = []
    for words in (firsts[row].split() for row in rows):
        who = words[0] if words[0] in ("man", "woman") else "person"
        names.append(f"{who} {words[-3]} skin tone")
    items = list(items_of(pairs))
    zimg, found = scorer.embed_items([items[row] for row in rows])
    assert len(found.good) == N and len(set(names)) >= CLASSES
    return Case(zimg=zimg, names=names, encode=scorer.embed_texts)


@pytest.fixture(scope="module", params=["synthetic", "bundled"])
def case(request):
    return {"synthetic": synthetic, "bundled": bundled}[request.param]()


class TheirModel:
    """Images are their embeddings already, tokens are indices of texts."""

    def __init__(self, encode):
        self._encode, self._texts = encode, []

    def tokenize(self, texts):
        self._texts += texts
        return torch.arange(len(self._texts) - len(texts), len(self._texts))

    def encode_image(self, images):
        return images.flatten(1)

    def encode_text(self, tokens):
        return torch.from_numpy(np.array(self._encode([self._texts[i] for i in tokens])))


class Loader(list):
    """Batches, with the data set's classes."""

    dataset: types.SimpleNamespace


def loader(zimg, targets, classes, size=50):
    batches = Loader()
    for start in range(0, len(zimg), size):
        part = slice(start, start + size)
        batches.append((torch.from_numpy(zimg[part]), targets[part]))
    batches.dataset = types.SimpleNamespace(classes=classes)
    return batches


def theirs(case, evaluate, data, *arguments):
    model = TheirModel(case.encode)
    return evaluate(model, data, model.tokenize, *arguments, "cpu", amp=False)


TEMPLATES = ("{}", "a photo of {}", "many {}")
THEIR_TEMPLATES = [template.replace("{}", "{c}") for template in TEMPLATES]


def everything(case):
    return Images(case.zimg, np.arange(len(case.zimg)))


@pytest.mark.parametrize("mesh", [None, make_mesh()])
def test_zero_shot(case, mesh):
    task = ZeroShot([[name] for name in case.names], None, TEMPLATES, canonical=False)
    got, facts = task.measure(everything(case), case.encode, mesh)
    target = torch.tensor([task.classes.index(name) for name in case.names])
    data = loader(case.zimg, target, task.classes)
    expected = theirs(case, zeroshot_classification.evaluate, data, task.classes, THEIR_TEMPLATES)
    ours = {"acc1": "accuracy", "acc5": "top5_accuracy", "mean_per_class_recall": None}
    assert set(expected) == set(ours)
    for theirs_name, name in ours.items():
        assert got[name or theirs_name] == pytest.approx(expected[theirs_name], rel=0, abs=1e-6)
    assert got["accuracy"] != got["mean_per_class_recall"] and 0.02 < got["accuracy"] < 1
    assert facts["classes"] > 5


def test_the_nearest_classes_are_the_same(case):
    classes = list(dict.fromkeys(case.names))
    z = case.encode(classes)
    logits = 100.0 * torch.from_numpy(case.zimg) @ torch.from_numpy(z).T
    order = logits.topk(5, 1, True, True)[1].numpy()
    np.testing.assert_array_equal(nearest_classes(case.zimg, z), order)


@pytest.mark.parametrize("mesh", [None, make_mesh()])
def test_several_labels(case, mesh):
    """Each image has its own class, and that of the image before it."""
    captions = [list({name, case.names[i - 1]}) for i, name in enumerate(case.names)]
    classes = list(dict.fromkeys(case.names))
    target = torch.zeros(N, len(classes), dtype=torch.long)
    for row, own in enumerate(captions):
        for name in own:
            target[row, classes.index(name)] = 1
    task = MultiLabel(captions, classes, TEMPLATES, canonical=False)
    got, facts = task.measure(everything(case), case.encode, mesh)
    data = loader(case.zimg, target, classes)
    expected = theirs(case, zeroshot_classification.evaluate, data, classes, THEIR_TEMPLATES)
    assert set(expected) == set(got) == {"mean_average_precision"}
    assert got == pytest.approx(expected, rel=0, abs=1e-6)
    model = TheirModel(case.encode)
    weights = zeroshot_classification.zero_shot_classifier(
        model, model.tokenize, classes, THEIR_TEMPLATES, "cpu", amp=False
    )
    each = zeroshot_classification.average_precision_per_class(
        100.0 * torch.from_numpy(case.zimg) @ weights, target
    )
    np.testing.assert_allclose(list(facts["average_precision"].values()), each, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mesh", [None, make_mesh()])
def test_retrieval(case, mesh):
    captions = [
        # No two alike: of equal ones torch takes any.
        [f"{name} {i}", *([f"{i} {name}s"] if i % 3 else [])]
        for i, name in enumerate(case.names)
    ]
    got, _ = Retrieval(captions).measure(everything(case), case.encode, mesh)
    data = loader(case.zimg, captions, None)
    evaluate = zeroshot_retrieval.evaluate
    model = TheirModel(case.encode)
    expected = evaluate(model, data, model.tokenize, "cpu", amp=False, recall_k_list=[1, 5, 10])
    for ours, name in (("txt2img", "image"), ("img2txt", "text")):
        for k in (1, 5, 10):
            theirs_value = expected[f"{name}_retrieval_recall@{k}"]
            assert got[f"{ours}_recall@{k}"] == pytest.approx(theirs_value, rel=0, abs=1e-6)
    assert 0 < got["txt2img_recall@10"] < 1


@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("texts", [2, 3])
def test_the_right_caption(case, images, texts):
    """SugarCrepe has one image and two captions, WinoGround two of each."""
    count = 30
    captions = [
        [f"{case.names[g * images]} {g} {number}" for number in range(max(texts, images))]
        for g in range(count)
    ]
    rows = np.arange(count * images)
    of_each = [
        # Each image has its own caption first; what belongs to none comes with the first.
        [captions[g][i], *(captions[g][images:] if i == 0 else [])]
        for g in range(count)
        for i in range(images)
    ]
    groups = [f"g{g}" for g in range(count) for _ in range(images)]
    got, facts = CaptionChoice(of_each, groups).measure(Images(case.zimg[rows], rows), case.encode)
    assert facts["groups"] == count and facts["groups_left_out"] == 0
    z = case.zimg[rows].reshape(count, images, -1, 1, 1)
    data = [
        (torch.from_numpy(z[part]), captions[part]) for part in (slice(0, 16), slice(16, count))
    ]
    expected = theirs(case, image_caption_selection.evaluate, data)
    names = {"text_accuracy": "text_acc", "image_accuracy": "image_acc", "group_accuracy": "acc"}
    for ours, name in names.items():
        if images == 1 and ours != "text_accuracy":
            assert ours not in got
        else:
            assert got[ours] == pytest.approx(expected[name], rel=0, abs=1e-6)
    assert got["tied_groups"] == 0


def test_the_metrics_of_a_probe(case):
    """Its training needs a GPU, and is another optimizer; what it reports is the same."""
    classes = list(dict.fromkeys(case.names))
    labels = np.array([classes.index(name) for name in case.names])
    found = linear_probe(case.zimg, labels, case.zimg, labels, strengths=[1e-3])
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    z = StandardScaler().fit_transform(case.zimg.astype(np.float64))
    scores = LogisticRegression(C=1e-3, max_iter=10_000).fit(z, labels).decision_function(z)
    logits, target = torch.from_numpy(scores), torch.from_numpy(labels)
    acc1, acc5 = their_probe.accuracy(logits.float(), target.float(), topk=(1, 5))
    balanced = their_probe.balanced_accuracy_score(target, logits.argmax(axis=1))
    assert found.metrics == pytest.approx(
        {"accuracy": acc1, "top5_accuracy": acc5, "mean_per_class_recall": balanced},
        rel=0,
        abs=1e-6,
    )
    assert mean_per_class_recall(found.predicted, labels) == pytest.approx(balanced, abs=1e-6)


def test_a_class_without_images_is_the_one_difference():
    """0 there, refused here; and the mean per-class recall leaves it out in both."""
    z = np.eye(3, dtype=np.float32)
    target = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    each = zeroshot_classification.average_precision_per_class(torch.from_numpy(z), target)
    assert each[2] == 0
    with pytest.raises(ValueError, match="1 of 3 classes does not have an image: 'c'"):
        MultiLabel([["a"], ["b"], ["a", "b"]], ["a", "b", "c"])
    theirs_value = zeroshot_classification.balanced_accuracy_score([0, 1, 1], [0, 2, 1])
    assert mean_per_class_recall([0, 2, 1], [0, 1, 1]) == theirs_value == 0.75
    assert recall(z, z, [0, 1, 2], ks=[1])["img2txt_recall@1"] == 1


def test_its_table_is_built_of_our_files(tmp_path):
    """`clip_benchmark build` makes one CSV of the files of a suite's results."""
    from clip_benchmark.cli import main_build

    result = run_suite(
        tiny(),
        str(write(tmp_path / "data")),
        tmp_path / "out",
        model=siglip_jax.load("siglip_emoji"),
    )
    folder = tmp_path / "out" / "metrics"
    main_build(types.SimpleNamespace(files=[str(folder)], output=str(tmp_path / "all.csv")))
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = {row["dataset"]: row for row in csv.DictReader(file)}
    assert len(rows) == len(result.results) == len(tiny().tasks)
    for name, own in result.results.items():
        row = next(row for dataset, row in rows.items() if dataset.rpartition("/")[2] == name)
        assert {key: float(row[key]) for key in own.metrics} == own.metrics
        assert row["model_fullname"].split()[0] and row["task"]
