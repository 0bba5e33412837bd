"""Tasks: from captions and embeddings to metrics, and run on data by one call."""

import hashlib

import numpy as np
import pytest
from pictures import scene
from PIL import Image

import siglip_jax
from siglip_jax.data import captions_of, open_pairs
from siglip_jax.data.open import Joined
from siglip_jax.evaluation import (
    CaptionChoice,
    FewShot,
    Images,
    LinearProbe,
    MultiLabel,
    Multilingual,
    NeighbourProbe,
    Retrieval,
    ZeroShot,
    class_labels,
    few_shot_accuracy,
    linear_probe,
    recall,
    run_task,
)


def encode(texts):
    """Unit vectors that depend on the text alone."""
    digests = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
    z = np.array([np.frombuffer(digest, np.int8) for digest in digests], np.float32)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def images_of(texts, good=None):
    """Images that are just like a text each."""
    good = np.arange(len(texts)) if good is None else np.array(good)
    return Images(encode([texts[row] for row in good]), good)


def test_what_cannot_be_read_leaves_with_its_captions():
    captions = [["a", "b"], ["c"], ["d"]]
    task = Retrieval(captions)
    got, facts = task.measure(images_of("acd", [0, 2]), encode)
    expected = recall(encode(["a", "d"]), encode(["a", "b", "d"]), [0, 0, 1])
    assert (got, facts, task.text_count) == (expected, {"images": 2, "texts": 3}, 4)


def test_languages_of_captions_or_of_images():
    captions = [["a", "A"], ["b", "B"], ["c"]]
    spoken = [["en", "de"], ["en", "de"], ["fr"]]
    got, facts = Multilingual(captions, spoken).measure(images_of("abc"), encode)
    assert list(facts["languages"]) == ["en", "de", "fr"]
    assert facts["languages"]["fr"]["images"] == 1 and facts["texts"] == 5
    for name, value in got.items():
        parts = [part["metrics"][name] for part in facts["languages"].values()]
        assert value == np.mean(parts)
    assert facts["languages"]["en"]["metrics"]["txt2img_recall@1"] == 1
    alone, about = Multilingual([["a", "b"]], [["en"]]).measure(images_of("a"), encode)
    assert alone == about["languages"]["en"]["metrics"] and about["languages"]["en"]["texts"] == 2


def test_groups_of_images():
    captions = [["a", "x"], ["b"], ["c", "d"], ["d"]]
    groups = ["one", "one", "two", "two"]
    task = CaptionChoice(captions, groups)
    assert task.text_count == 5  # a, b, x and c, d
    metrics, facts = task.measure(images_of("abdd"), encode)
    assert metrics["text_accuracy"] == metrics["group_accuracy"] == 0.5
    assert facts == {"images": 4, "texts": 5, "groups": 2, "groups_left_out": 0}
    metrics, facts = task.measure(images_of("abdd", [0, 1, 3]), encode)
    assert metrics["group_accuracy"] == 1
    assert facts == {"images": 2, "texts": 3, "groups": 1, "groups_left_out": 1}
    with pytest.raises(ValueError, match="no group of images can be read as a whole"):
        task.measure(images_of("abdd", [0, 3]), encode)


def test_every_caption_may_be_right():
    captions = [["a", "b"], ["b", "a"], ["c"]]
    one, _ = ZeroShot(captions, templates=["{}"]).measure(images_of("aac"), encode)
    assert one["accuracy"] == pytest.approx(2 / 3) and "mean_per_class_recall" in one
    any_, facts = ZeroShot(captions, templates=["{}"], several=True).measure(
        images_of("aac"), encode
    )
    assert any_ == {"accuracy": 1.0, "top5_accuracy": 1.0}
    assert (facts["classes"], facts["classes_without_images"]) == (3, 0)


def test_classes_without_images_are_counted():
    task = ZeroShot([["a"], ["b"]], ["a", "b", "c", "d"], ["{}"])
    assert task.measure(images_of("ab"), encode).facts["classes_without_images"] == 2
    assert task.measure(images_of("ab", [0]), encode).facts["classes_without_images"] == 3


def test_probes_learn_from_the_images_behind_those_to_test_with():
    rng = np.random.default_rng(0)
    labels = np.concatenate([rng.integers(0, 3, 30), np.tile(np.arange(3), 12)])
    z = (np.eye(3)[labels] + 0.7 * rng.standard_normal((66, 3))).astype(np.float32)
    names = [["cat", "dog", "bird"][label] for label in labels]
    everything = Images(z, np.arange(66))
    # Classes in the order of those to learn from.
    parts = z[30:], labels[30:], z[:30], labels[:30]
    linear = LinearProbe([[name] for name in names], 30, seed=3)
    assert linear.classes == ["cat", "dog", "bird"] and linear.text_count == 0
    assert linear.measure(everything).metrics == linear_probe(*parts, seed=3).metrics
    few = FewShot([[name] for name in names], 30, shots=5)
    metrics, facts = few.measure(everything)
    assert facts["probe"]["accuracy_by_seed"] == few_shot_accuracy(*parts, shots=5)
    assert metrics == {"accuracy": np.mean(facts["probe"]["accuracy_by_seed"])}
    assert (facts["images"], facts["train_images"], facts["classes"]) == (30, 36, 3)
    near = NeighbourProbe([[name] for name in names], 30, neighbours=3)
    lost = np.setdiff1d(np.arange(66), [0, 40])
    facts = near.measure(Images(z[lost], lost)).facts
    assert (facts["images"], facts["train_images"]) == (29, 35)
    with pytest.raises(ValueError, match="no image of the test data can be read"):
        near.measure(Images(z[30:], np.arange(30, 66)))
    with pytest.raises(ValueError, match="that can be read: 'dog', 'bird'"):
        few.measure(Images(z[labels == 0], np.flatnonzero(labels == 0)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Retrieval([]), "there is no image"),
        (lambda: Retrieval([["a"], []]), "1 of 2 images have no caption, the first is number 1"),
        (lambda: Multilingual([["a", "b", "c"]], [["en", "de"]]), "3 captions and 2 languages"),
        (lambda: Multilingual([["a"]], []), "1 images with captions, and 0 with languages"),
        (lambda: CaptionChoice([["a", "b"], ["a"]]), "image 1 has one caption alone"),
        (lambda: CaptionChoice([["a", "a"]]), "image 0 has one caption alone"),
        (lambda: CaptionChoice([["a"], ["a"]], ["g", "g"]), "two images have the same first"),
        (lambda: CaptionChoice([["a"], ["b"]], ["g"]), "there are 2 images, and 1 groups"),
        (lambda: ZeroShot([["a"], ["a"]]), "the classes: 'a' is one class alone"),
        (lambda: ZeroShot([["a"], []]), "1 of 2 images have no caption"),
        (lambda: ZeroShot([["a"], ["c"]], ["a", "b"]), "1 of 2 images are of a class that is not"),
        (lambda: ZeroShot([["a"], ["b"]], ["a", "b", "a"]), "the class 'a' is there twice"),
        (
            lambda: ZeroShot([["0"], ["2"]], ["a", "b"]),
            "there are 2 classes, and images of class 2",
        ),
        (lambda: ZeroShot([["a"], ["b"]], templates=["x"]), "template 'x' must hold {} once"),
        (
            lambda: MultiLabel([["a", "b"], ["a", "d"]], ["a", "b", "c", "d"]),
            "1 of 4 classes does not have an image: 'c'",
        ),
        (lambda: LinearProbe([["a"], ["b"]], 2), "there must be images to learn from"),
        (lambda: LinearProbe([["a"], ["b"], ["c"]], 1), "1 classes of the test data.*such as 'a'"),
        (
            lambda: LinearProbe([["a"], ["a"], ["c"]], 1, ["a", "b", "c"]),
            "1 of 3 classes does not have an image to learn from: 'b'",
        ),
        (lambda: FewShot([["a"], ["a"], ["b"]], 1, shots=2), "2 of 2.*fewer than 2.*'a' with 1"),
        (lambda: NeighbourProbe([["a"], ["a"]], 1), "'a' is one class alone"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_captions_may_be_indices():
    classes, labels = class_labels([["1"], ["0"]], ["cat", "dog"])
    assert classes == ["cat", "dog"] and labels.tolist() == [[1], [0]]
    # Digits that are names are names.
    assert class_labels([["7"], ["5"]], ["7", "5"])[1].tolist() == [[0], [1]]
    # Of two classes of one name either can be meant by its index.
    assert class_labels([["2"], ["0"]], ["missile", "x", "missile"])[1].tolist() == [[2], [0]]


@pytest.fixture(scope="module")
def scorer():
    return siglip_jax.load("siglip_emoji").scorer(batch_size=8, text_batch_size=8)


def test_a_task_runs_on_data(scorer, tmp_path):
    for i, caption in enumerate(["cat", "dog", "cat", "dog"]):
        Image.fromarray(scene(40, 50 + i, seed=i)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(caption)
    pairs = open_pairs(str(tmp_path))
    captions = captions_of(pairs)
    metrics, facts = run_task(ZeroShot(captions, templates=["{}"]), pairs, scorer)
    zimg = scorer.embed_images([tmp_path / f"{i}.png" for i in range(4)])
    z = scorer.embed_texts(["cat", "dog"])
    assert metrics["accuracy"] == np.mean((zimg @ z.T).argmax(1) == [0, 1, 0, 1])
    assert facts["images"] == 4
    both = Joined([pairs, pairs])
    task = NeighbourProbe(captions_of(both), len(pairs), neighbours=1)
    assert run_task(task, both, scorer).metrics["accuracy"] == 1
    (tmp_path / "2.png").write_text("hello")
    with pytest.raises(ValueError, match=r"2\.png: not an image in a known format"):
        run_task(Retrieval(captions), pairs, scorer)
    seen = []
    facts = run_task(Retrieval(captions), pairs, scorer, lambda *why: seen.append(why)).facts
    assert facts == {"images": 3, "texts": 3} and [key for key, _ in seen] == ["2.png"]
    for path in tmp_path.glob("*.png"):
        path.write_text("hello")
    with pytest.raises(ValueError, match="none of the 4 images can be read"):
        run_task(Retrieval(captions), pairs, scorer, lambda *why: None)
