"""The methods on scenes whose masks are known: what docs/seeing_why.md says of them."""

import numpy as np
import pytest
import shape_scenes

import siglip_jax
from siglip_jax.explain import METHODS, deletion


@pytest.fixture(scope="module")
def scorer():
    return siglip_jax.load(shape_scenes.MODEL).scorer(batch_size=17, text_batch_size=2)


@pytest.fixture(scope="module")
def measured(scorer):
    # Another seed than recipes/shapes/measure.py has.
    made = shape_scenes.held_out(12)
    measure = shape_scenes.script("measure")
    return measure.measure(scorer, made, (METHODS[0], "attention"))


def test_the_default_points_at_what_is_named(measured):
    assert measured[METHODS[0]]["pointing"] >= 0.9
    assert measured["attention"]["pointing"] < 0.7  # it does not know which is named
    assert measured["by lot"]["pointing"] < 0.3


def test_the_default_finds_what_the_score_hangs_on(measured):
    area = measured[METHODS[0]]["deletion"]
    assert area < measured["attention"]["deletion"]
    assert area < 0.5 * measured["by lot"]["deletion"]


def test_a_deletion_curve_by_hand(scorer):
    (scene,) = shape_scenes.held_out(1)
    heat = np.zeros((8, 8), np.float32)
    heat[2, 3] = 1
    found = deletion(scorer, scene.image, scene.captions[0], heat, steps=64)
    assert found.shares.tolist() == [n / 64 for n in range(65)]
    image = scene.image.copy()
    image[16:24, 24:32] = np.round(scene.image.reshape(-1, 3).mean(axis=0))
    expected = scorer.score([scene.image, image], [scene.captions[0]]).logits[:, 0]
    np.testing.assert_allclose(found.logits[:2], expected, atol=1e-4)
    even = np.full_like(image, np.round(scene.image.reshape(-1, 3).mean(axis=0)))
    expected = scorer.score([even], [scene.captions[0]]).logits[0]
    np.testing.assert_allclose(found.logits[-1:], expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"expected a map of shape \(8, 8\).* got \(4, 4\)"):
        deletion(scorer, scene.image, scene.captions[0], np.zeros((4, 4)))
