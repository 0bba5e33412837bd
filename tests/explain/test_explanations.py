"""Explanations are of the model's own numbers: attention, gradients, sums, grids."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saved_model
import shape_scenes

import siglip_jax
from siglip_jax.explain.explainer import Explainer
from siglip_jax.explain.head import WeightedHead
from siglip_jax.models import normalize
from siglip_jax.models.transformer import MapHead
from siglip_jax.preprocessing.naflex import target_size

LABELS = ["a red circle", "a blue cross"]
SHORT = ["cat", "dog"]  # for models of random weights, whose texts have eight tokens


@pytest.fixture(scope="module")
def scorer():
    return siglip_jax.load(shape_scenes.MODEL).scorer(batch_size=17, text_batch_size=2)


@pytest.fixture(scope="module")
def naflex(tmp_path_factory):
    folder = saved_model.saved(tmp_path_factory.mktemp("naflex") / "m", "naflex")
    return siglip_jax.load(folder).scorer(batch_size=2, text_batch_size=2)


@pytest.fixture(scope="module")
def scene():
    return shape_scenes.held_out(1)[0]


def own(scorer, image):
    """What the model itself says of an image: (zimg, tokens, weights of the head)."""
    ready = scorer.preprocess(image, ready=True)
    zimg, _, out = scorer.model.apply({"params": scorer.params}, ready, map_weights=True)
    return zimg, out["img/encoded"], out["img/map_weights"]


def photo(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("which", ["scorer", "naflex"])
def test_attention_and_scores_are_the_models(which, request, scene):
    scorer = request.getfixturevalue(which)
    image, labels = (scene.image, LABELS) if which == "scorer" else (photo(40, 90), SHORT)
    made = scorer.explain(image, labels, method="attention")
    zimg, tokens, weights = own(scorer, image)
    count = made.grid[0] * made.grid[1]
    np.testing.assert_allclose(
        made.attention.reshape(-1, count), weights[0, :, :count], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(made.attention.sum(axis=(1, 2)), 1, rtol=1e-5)
    np.testing.assert_array_equal(made.maps[0], made.maps[1])  # whatever the label
    np.testing.assert_allclose(
        made.logits, scorer.score([image], labels).logits[0], rtol=1e-4, atol=1e-4
    )
    # The head, given its own weights, gives the model's embedding.
    head = WeightedHead(scorer.model.config.image_tower.size)
    pooled = head.apply({"params": scorer.params["img"]["MAPHead_0"]}, tokens, weights)
    np.testing.assert_allclose(normalize(pooled), zimg, atol=1e-5)


def test_similarity_is_the_head_on_each_patch_alone(scorer, scene):
    made = scorer.explain(scene.image, LABELS, method="similarity")
    _, tokens, _ = own(scorer, scene.image)
    head = MapHead(size=scorer.model.config.image_tower.size)
    params = {"params": scorer.params["img"]["MAPHead_0"]}
    alone = np.concatenate([head.apply(params, tokens[:, [n]])[0] for n in range(64)])
    alone /= np.linalg.norm(alone, axis=1, keepdims=True)
    expected = scorer.logits(alone, scorer.embed_labels(LABELS)).T
    np.testing.assert_allclose(made.maps.reshape(2, 64), expected, rtol=1e-4, atol=1e-4)


def test_a_gradient_is_what_looking_more_at_a_patch_changes(scorer, scene):
    made = scorer.explain(scene.image, LABELS[:1], method="gradient")
    _, tokens, weights = own(scorer, scene.image)
    head = WeightedHead(scorer.model.config.image_tower.size)
    params = {"params": scorer.params["img"]["MAPHead_0"]}
    ztxt, step = scorer.embed_labels(LABELS[:1]), 0.05

    def score(cell, by):
        moved = jnp.log(weights).at[:, :, cell].add(by)
        return float(
            scorer.logits(
                np.asarray(normalize(head.apply(params, tokens, jax.nn.softmax(moved)))), ztxt
            )[0, 0]
        )

    cells = [0, *np.argsort(-np.abs(made.maps[0].ravel()))[:5]]
    expected = [(score(cell, step) - score(cell, -step)) / (2 * step) for cell in cells]
    np.testing.assert_allclose(made.maps[0].ravel()[cells], expected, rtol=0.03, atol=3e-3)


@pytest.mark.parametrize("which", ["scorer", "naflex"])
def test_integrated_gradients_are_complete(which, request):
    scorer = request.getfixturevalue(which)
    images, labels = [scene.image for scene in shape_scenes.held_out(3)], LABELS
    if which == "naflex":
        images, labels = [photo(40, 90), photo(64, 32)], SHORT
    for image in images:
        made = scorer.explain(image, labels, method="integrated_gradients")
        assert np.isfinite(made.maps).all() and (made.gaps < 0.01).all()
        ready = scorer.preprocess(image, ready=True)
        if which == "naflex":
            used = np.asarray(ready.type) == 1
            pixels = np.array(ready.patches)
            pixels[used] = np.tile(pixels[used].reshape(-1, 3).mean(axis=0), 64)
            empty = ready._replace(patches=pixels)
        else:
            empty = np.broadcast_to(ready.mean(axis=(1, 2), keepdims=True), ready.shape)
        ztxt = scorer.embed_labels(labels)
        ends = [scorer.logits(own_z(scorer, x), ztxt)[0] for x in (ready, empty)]
        np.testing.assert_allclose(made.maps.sum(axis=(1, 2)), ends[0] - ends[1], rtol=0.011)


def own_z(scorer, ready):
    return np.asarray(scorer.model.apply({"params": scorer.params}, ready)[0])


@pytest.mark.parametrize(("height", "width"), [(40, 90), (90, 40), (8, 8)])
def test_the_grid_of_a_naflex_image_is_its_own(naflex, height, width):
    image = photo(height, width)
    made = naflex.explain(image, SHORT, method="similarity")
    rows, columns = (side // 8 for side in target_size(height, width, 8, 25))
    assert made.grid == (rows, columns) and made.maps.shape == (2, rows, columns)
    assert made.pixels.shape == (8 * rows, 8 * columns, 3)
    ready = naflex.preprocess(image)
    first = (ready.patches[columns + 1 if rows > 1 and columns > 1 else 0].reshape(8, 8, 3) + 1) / 2
    y, x = (8, 8) if rows > 1 and columns > 1 else (0, 0)
    np.testing.assert_allclose(made.pixels[y : y + 8, x : x + 8] / 255, first.clip(0, 1), atol=3e-3)


def test_pixels_beyond_the_last_whole_patch_are_not_shown():
    model, params, profile = saved_model.with_vocabulary("scan_crop14")
    tokenizer = siglip_jax.preprocessing.Tokenizer(saved_model.VOCABULARY, profile.text)
    scorer = siglip_jax.Scorer(*(model, params), profile=profile, tokenizer=tokenizer, batch_size=1)
    made = scorer.explain(photo(60, 60), SHORT, method="integrated_gradients")
    assert made.grid == (4, 4) and made.pixels.shape == (56, 56, 3)
    assert (made.gaps < 0.01).all()


@pytest.mark.parametrize("method", siglip_jax.explain.METHODS)
def test_a_model_that_makes_nan_is_one_line(scorer, scene, method):
    params = jax.tree.map(jnp.asarray, scorer.params)
    head = params["img"]["MAPHead_0"]["MlpBlock_0"]["Dense_1"]
    broken = siglip_jax.Scorer(
        scorer.model,
        params
        | {
            "img": params["img"]
            | {
                "MAPHead_0": params["img"]["MAPHead_0"]
                | {
                    "MlpBlock_0": params["img"]["MAPHead_0"]["MlpBlock_0"]
                    | {"Dense_1": head | {"bias": head["bias"] * jnp.nan}}
                }
            }
        },
        profile=scorer.profile,
        tokenizer=scorer.tokenizer,
        batch_size=1,
        text_batch_size=2,
    )
    with pytest.raises(ValueError, match=r"^label 'a red circle': its score is NaN or infinite"):
        broken.explain(scene.image, LABELS, method=method)


def test_nothing_to_explain_is_one_warning(scorer):
    even = np.full((64, 64, 3), 200, np.uint8)
    with pytest.warns(UserWarning, match="label 'a dog': the map by integrated_.* is zero every"):
        made = scorer.explain(even, ["a dog"], method="integrated_gradients")
    np.testing.assert_allclose(made.maps, 0, atol=1e-4)


def test_too_few_steps_are_said(scorer, scene):
    with pytest.warns(UserWarning, match=r"misses .*% of what it explains with 1 steps; take more"):
        made = scorer.explain(
            scene.image, [scene.captions[0]], method="integrated_gradients", steps=1
        )
    assert made.gaps[0] > 0.01


def test_a_model_that_takes_the_mean_of_patches():
    model, params, profile = saved_model.with_vocabulary("loop")
    vision = dataclasses.replace(model.config.vision, pool="gap")
    config = dataclasses.replace(model.config, vision=vision)
    img = {name: leaf for name, leaf in params["img"].items() if name != "MAPHead_0"}
    tokenizer = siglip_jax.preprocessing.Tokenizer(saved_model.VOCABULARY, profile.text)
    scorer = siglip_jax.Scorer(
        siglip_jax.SiglipModel(config),
        params | {"img": img},
        profile=profile,
        tokenizer=tokenizer,
        batch_size=1,
    )
    image = photo(32, 32)
    with pytest.raises(ValueError, match="method gradient is about the attention of the pooling"):
        scorer.explain(image, SHORT, method="gradient")
    made = scorer.explain(image, SHORT, method="similarity")
    assert made.attention is None and np.isfinite(made.maps).all()
    assert (scorer.explain(image, SHORT, method="integrated_gradients").gaps < 0.01).all()


def test_what_is_refused(scorer, scene):
    def said(*args, **options):
        with pytest.raises(ValueError) as error:
            scorer.explain(*args, **options)
        return str(error.value)

    assert said(scene.image, LABELS, method="gradiant").endswith("did you mean gradient?")
    assert said(scene.image, [""]) == "labels[0] is empty"
    assert said(scene.image, LABELS, steps=0) == "steps must be at least 1, got 0"
    assert "none.png" in said("none.png", LABELS)


def test_one_tower_alone_says_which_it_needs(scorer):
    config = scorer.model.config.only("image")
    alone = siglip_jax.Scorer(
        siglip_jax.SiglipModel(config),
        {"img": scorer.params["img"]},
        profile=scorer.profile,
        batch_size=1,
    )
    with pytest.raises(ValueError, match="image tower alone; explanations need a text tower too"):
        alone.explain(np.zeros((64, 64, 3), np.uint8), LABELS)


def test_an_explainer_traces_a_method_once(scorer, scene):
    explainer = scorer._explainer
    assert isinstance(explainer, Explainer) and explainer is scorer._explainer
    scorer.explain(scene.image, LABELS, method="gradient")
    before = explainer.gradient._cache_size()
    scorer.explain(scene.image[::-1].copy(), LABELS, method="gradient")
    assert explainer.gradient._cache_size() == before
