"""Zero-shot classification: texts, class embeddings, accuracy."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tolerances import EMBEDDING

from siglip_jax.evaluation import (
    CLASS_NAME_ONLY,
    CLIP_BEST,
    CLIP_PAPER,
    TEMPLATES,
    canonicalize,
    class_embeddings,
    class_texts,
    zero_shot_accuracy,
)
from siglip_jax.programs import make_mesh

# Of the texts joined by line breaks, as big_vision has them at 0127fb6.
DIGESTS = {
    "clip_paper": (81, "617764ae37ca494aff67b36e2f3b3919d44fd3eeb5b4dba56f207ad6723c3d05"),
    "clip_best": (8, "5c945b4b35da9f638c63452151f797454d084aead4c1a8a90a8b592e93ed91ba"),
}


@pytest.mark.parametrize("name", DIGESTS)
def test_templates_are_those_of_the_benchmark(name):
    count, digest = DIGESTS[name]
    assert len(TEMPLATES[name]) == count
    assert hashlib.sha256("\n".join(TEMPLATES[name]).encode()).hexdigest() == digest


def test_templates_by_name():
    assert TEMPLATES == {
        "clip_paper": CLIP_PAPER,
        "clip_best": CLIP_BEST,
        "class_name_only": CLASS_NAME_ONLY,
    }
    assert set(CLIP_BEST) < set(CLIP_PAPER) and len(set(CLIP_PAPER)) == 81
    assert all(template.count("{}") == 1 for template in CLIP_PAPER)


@pytest.mark.parametrize(
    ("text", "keep", "expected"),
    [
        ("A close-up photo of a {}.", "{}", "a closeup photo of a {}"),
        ("A {} {x} } {}", "{}", "a {} x {}"),
        ("  Hen_of   the\twoods,\nmushroom! ", ",", "hen of the woods, mushroom"),
        ("a,b", "", "ab"),
        ("ÉCLAIR “Straße” №5?", "", "éclair “straße” №5"),
        ("", "", ""),
    ],
)
def test_canonical_texts(text, keep, expected):
    assert canonicalize(text, keep=keep) == expected


@given(st.text(), st.sampled_from(["", ",", "{}"]))
def test_canonical_texts_stay_as_they_are(text, keep):
    once = canonicalize(text, keep=keep)
    assert canonicalize(once, keep=keep) == once


def test_class_texts():
    names, templates = ["Great_white shark, man-eater", "Hen"], ["A {}.", "{}"]
    assert class_texts(names, templates) == [
        ["a great white shark", "great white shark"],
        ["a hen", "hen"],
    ]
    # The space behind the comma stays, as in big_vision.
    assert class_texts(names, templates, aliases="all")[0] == [
        *("a great white shark", "great white shark"),
        *("a  maneater", " maneater"),
    ]
    assert class_texts(names, ["A {}."], aliases="none")[0] == ["a great white shark maneater"]
    assert class_texts(names, ["A {}."], canonical=False) == [["A Great_white shark."], ["A Hen."]]
    assert class_texts(names, ["{}!"], canonical=False, aliases="none")[0] == [f"{names[0]}!"]
    # One among others may be what a class is called.
    assert class_texts(["n01440764", "Hen"], ["{}"])[0] == ["n01440764"]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ("a cat", {}, "expected a list of class names, got 'a cat'"),
        ([], {}, r"expected a list of class names, got \[\]"),
        (["n01440764", "n02119789"], {}, "classes are numbers of WordNet, such as n01440764"),
        (["cat", "?!"], {}, "nothing is left of the class name '\\?!'; it is punctuation only"),
        (["cat", " "], {}, "nothing is left of the class name ' '$"),
        (["cat", "dog,"], {"aliases": "all"}, "nothing is left of the class name 'dog,'"),
        (["cat"], {"templates": "a {}"}, "templates must be a list of strings"),
        (["cat"], {"templates": ["a { }"]}, "must hold {} once, where the label goes"),
    ],
)
def test_bad_names_and_templates(names, options, message):
    with pytest.raises(ValueError, match=message):
        class_texts(names, **options)


def encode(texts):
    """Unit vectors that depend on the text alone."""
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    z = np.array([np.frombuffer(digest, np.int8) for digest in digests], np.float32)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_a_class_is_the_mean_of_all_its_texts():
    names, templates = ["a,b,c", "d", "e,f"], ["{}", "x {}"]
    got = class_embeddings(encode, names, templates, aliases="all")
    assert got.shape == (3, 32) and got.dtype == np.float32
    for row, name in zip(got, names, strict=True):
        mean = np.mean([encode([t.format(a)])[0] for a in name.split(",") for t in templates], 0)
        expected = mean / (1e-8 + np.linalg.norm(mean))
        np.testing.assert_allclose(row, expected, rtol=0, atol=EMBEDDING)
    first = class_embeddings(encode, names, templates)
    np.testing.assert_array_equal(first[1], got[1])
    assert np.abs(first - got)[[0, 2]].max() > 0.1


def brute(zimg, classes, labels, k):
    order = np.argsort(-(zimg @ classes.T), axis=1, kind="stable")[:, :k]
    return np.mean([bool(set(row) & set(own)) for row, own in zip(order, labels, strict=True)])


@pytest.mark.parametrize("mesh", [None, make_mesh(), make_mesh(model=2)])
def test_accuracy(mesh):
    rng = np.random.default_rng(0)
    zimg, classes = (rng.standard_normal((n, 6), np.float32) for n in (1500, 40))
    labels = rng.integers(0, 40, 1500)
    got = zero_shot_accuracy(zimg, classes, labels, ks=[1, 5, 10], mesh=mesh)
    assert got == {
        name: brute(zimg, classes, labels[:, None], k)
        for name, k in (("accuracy", 1), ("top5_accuracy", 5), ("top10_accuracy", 10))
    }
    assert all(type(value) is float for value in got.values())


def test_any_of_several_labels_is_right():
    """ImageNet ReaL: padded with -1, and no label at all is wrong."""
    z = np.eye(4, dtype=np.float32)
    labels = [[0, -1, -1], [3, 1, -1], [0, 1, 3], [-1, -1, -1]]
    assert zero_shot_accuracy(z, z, labels, ks=[1]) == {"accuracy": 0.5}
    rng = np.random.default_rng(1)
    zimg, classes = (rng.standard_normal((n, 6), np.float32) for n in (300, 9))
    labels = np.sort(rng.integers(-1, 9, (300, 3)))[:, ::-1]
    got = zero_shot_accuracy(zimg, classes, labels)
    for name, k in (("accuracy", 1), ("top5_accuracy", 5)):
        assert got[name] == brute(zimg, classes, [set(row) - {-1} for row in labels], k)


def test_ties_go_to_the_lower_class():
    zimg, classes = np.ones((3, 2)), np.ones((7, 2))
    got = zero_shot_accuracy(zimg, classes, [0, 4, 5])
    assert got == {"accuracy": 1 / 3, "top5_accuracy": 2 / 3}


def test_fewer_classes_than_places():
    assert zero_shot_accuracy(np.eye(2), np.eye(2), [1, 0]) == {"accuracy": 0, "top5_accuracy": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": np.eye(4)}, r"expected embeddings.*got \(3, 3\) and \(4, 4\)"),
        ({"zimg": np.zeros((0, 3))}, r"expected embeddings.*got \(0, 3\)"),
        ({"zimg": np.full((3, 3), np.nan)}, "some embeddings are not finite"),
        ({"labels": [0, 1]}, r"shape \(3,\) or \(3, most\), got int64 of shape \(2, 1\)"),
        ({"labels": ["a", "b", "c"]}, "labels must be integers"),
        ({"labels": [0, 1, 3]}, r"labels must lie in 0\.\.2, or be -1 for none, got 0\.\.3"),
        ({"labels": [0, 1, -2]}, r"labels must lie in 0\.\.2.*got -2\.\.1"),
        ({"ks": [0]}, "ks must be whole numbers of at least 1"),
    ],
)
def test_bad_input(change, message):
    good = {"zimg": np.eye(3), "classes": np.eye(3), "labels": [0, 1, 2]}
    with pytest.raises(ValueError, match=message):
        zero_shot_accuracy(**(good | change))
