"""Recall in several languages."""

import numpy as np
import pytest

from siglip_jax.evaluation import mean_over, recall, recall_by_language
from siglip_jax.programs import make_mesh


@pytest.mark.parametrize("mesh", [None, make_mesh()])
def test_a_language_is_a_data_set_of_its_own(mesh):
    rng = np.random.default_rng(0)
    zimg, ztxt = (rng.standard_normal((n, 6), np.float32) for n in (20, 90))
    owner, spoken = rng.integers(0, 20, 90), rng.choice(["de", "sw", "quz"], 90)
    owner[spoken == "sw"] %= 7  # of 13 images nothing is said in Swahili
    got = recall_by_language(zimg, ztxt, owner, list(spoken), mesh=mesh)
    assert list(got) == list(dict.fromkeys(spoken))
    for language, metrics in got.items():
        mine = spoken == language
        images = sorted(set(owner[mine]))
        own = [images.index(number) for number in owner[mine]]
        assert metrics == recall(zimg[images], ztxt[mine], own)
    assert got["sw"]["txt2img_recall@10"] == 1  # among 7 images


def test_every_language_weighs_the_same():
    z = np.eye(2, dtype=np.float32)
    found = recall_by_language(z, z[[0, 1, 0, 1]], [0, 1, 1, 0], ["a", "a", "b", "b"], ks=[1])
    assert mean_over(found) == {"img2txt_recall@1": 0.5, "txt2img_recall@1": 0.5}
    with pytest.raises(ValueError, match="the metrics are not the same for all"):
        mean_over({"a": {"x": 1.0}, "b": {"y": 1.0}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": ["de"]}, "a language and an image of each of the 2 texts, got 1 and 2"),
        ({"image_of_text": [0]}, "a language and an image of each of the 2 texts, got 2 and 1"),
        ({"image_of_text": [0, 5]}, r"image_of_text must lie in 0\.\.1, got 0\.\.5"),
        ({"zimg": np.full((2, 2), np.nan)}, "rows of zimg are not finite"),
    ],
)
def test_bad_input(change, message):
    good = {"zimg": np.eye(2), "ztxt": np.eye(2), "image_of_text": [0, 1], "languages": ["a", "b"]}
    with pytest.raises(ValueError, match=message):
        recall_by_language(**(good | change))
