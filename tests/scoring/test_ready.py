"""Arrays that are not what a model takes: an error says what is expected, not a wrong score."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_checkpoint import CONFIG, tensors
from towers import case

from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import Patches, custom_profile, preprocess_image
from siglip_jax.preprocessing.images import to_float
from siglip_jax.scoring import Scorer
from siglip_jax.weights.tree import nested

RNG = np.random.default_rng(0)
UINT8 = RNG.integers(0, 256, (2, 32, 32, 3), np.uint8)
FLOATS = to_float(UINT8)


@pytest.fixture(scope="module")
def scorer():
    params, profile = nested(tensors()), custom_profile(CONFIG, 1)
    return Scorer(SiglipModel(CONFIG), params, profile=profile, batch_size=2)


EXPECTED = r"expected uint8 images, or floats from -1 to 1, got "


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (UINT8.astype(np.float32), EXPECTED + "float32 from 0 to 255; give files"),
        (UINT8 / np.float32(255), EXPECTED + "float32 from 0 to 1; give files"),
        (UINT8.astype(np.int32), EXPECTED + "int32; give files"),
        (FLOATS * np.float32(np.nan), EXPECTED + "float32 from nan to nan"),
        (UINT8.transpose(0, 3, 1, 2), r"expected images of shape \(n, 32, 32, 3\), got \(2, 3, 32"),
        (FLOATS.transpose(0, 3, 1, 2), r"channels first; pass images\.transpose\(0, 2, 3, 1\)"),
    ],
)
def test_the_scorer_refuses(scorer, images, message):
    with pytest.raises(ValueError, match=message):
        scorer.embed_images(images)


def test_the_scorer_takes_what_is_ready(scorer):
    expected = scorer.embed_images(UINT8)
    same = {"rtol": 0, "atol": 1e-5}
    np.testing.assert_allclose(scorer.embed_images(FLOATS), expected, **same)
    light = np.maximum(UINT8, 128)  # all above 0 in -1..1, and of 256 grey levels
    given, wanted = scorer.embed_images(to_float(light)), scorer.embed_images(light)
    np.testing.assert_allclose(given, wanted, **same)
    overshot = FLOATS * np.float32(1.2)
    assert np.isfinite(scorer.embed_images(overshot)).all()
    assert scorer.embed_images(np.zeros_like(FLOATS)).shape == (2, 48)  # grey, as far as one knows


def test_the_range_is_the_profiles(scorer):
    image = dataclasses.replace(scorer.profile.image, value_range=(0.0, 1.0))
    profile = dataclasses.replace(scorer.profile, image=image)
    other = Scorer(scorer.model, scorer.params, profile=profile, batch_size=2)
    expected = other.embed_images(UINT8)
    given = other.embed_images(UINT8 / np.float32(255))
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"floats from 0 to 1, got float32 from -1 to 1"):
        other.embed_images(FLOATS)
    one = other.preprocess(UINT8[0], ready=True)
    assert (one.dtype, one.shape) == (np.float32, (1, 32, 32, 3))
    assert one.min() >= 0 and one.max() <= 1


def test_what_preprocess_returns(scorer):
    picture = RNG.integers(0, 256, (50, 40, 3), np.uint8)
    plain, ready = scorer.preprocess(picture), scorer.preprocess(picture, ready=True)
    np.testing.assert_array_equal(plain, preprocess_image(picture, scorer.profile.image))
    assert (plain.dtype, plain.shape, ready.shape) == (np.uint8, (32, 32, 3), (1, 32, 32, 3))
    zimg, _, _ = jax.jit(scorer.model.apply)({"params": scorer.params}, ready)
    np.testing.assert_allclose(zimg, scorer.embed_images([picture]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            UINT8,
            r"expected float images, normalised .* got uint8; scorer\.preprocess\(image",
        ),
        (UINT8.astype(np.int32), "expected float images, .* got int32"),
        (FLOATS.transpose(0, 3, 1, 2), r"\(b, 32, 32, 3\), got \(2, 3, 32, 32\), channels first"),
        (np.zeros((2, 40, 40, 3), np.float32), r"got \(2, 40, 40, 3\); resize them"),
        (
            Patches(*np.zeros((4, 1, 2, 3))),
            "a fixed resolution, which this model takes, got Patches",
        ),
    ],
)
@pytest.mark.parametrize("jit", [False, True])
def test_apply_refuses(scorer, image, message, jit):
    run = lambda params, image: scorer.model.apply({"params": params}, image)[0]  # noqa: E731
    with pytest.raises(ValueError, match=message):
        (jax.jit(run) if jit else run)(scorer.params, image)


def test_naflex_refuses():
    tiny = case("naflex")
    scorer = Scorer(SiglipModel(tiny.config, tiny.execution), tiny.params, batch_size=1)
    params, patches = {"params": scorer.params}, Patches(*map(np.asarray, tiny.images))
    with pytest.raises(ValueError, match="expected Patches, which this NaFlex model takes, got fl"):
        scorer.embed_images(FLOATS)
    with pytest.raises(ValueError, match=r"expected Patches, .* got uint8 of shape"):
        scorer.model.apply(params, jnp.asarray(UINT8))
    with pytest.raises(ValueError, match=r"expected float patches, .* got uint8"):
        scorer.model.apply(params, patches._replace(patches=patches.patches.astype(np.uint8)))
    with pytest.raises(ValueError, match=r"float patches from -1 to 1, got float32 from .* to 2"):
        scorer.embed_images(patches._replace(patches=patches.patches * 255))
