"""The scorer: fixed shapes, cached labels, templates, bad pictures, ahead-of-time."""

import dataclasses

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import EMBEDDING
from towers import FIXTURES, case

from siglip_jax.models import SiglipModel, logits
from siglip_jax.preprocessing import Patches, Tokenizer, custom_profile
from siglip_jax.programs import Program, make_mesh, sharding_of
from siglip_jax.scoring import Scorer, Scores
from siglip_jax.scoring.prompts import average, expand

RNG = np.random.default_rng(0)
LABELS = ["a dog", "a cat", "a donut", "a beignet", "a bagel"]


class Ids:
    """A tokenizer for the tiny vocabulary of 64, which counts its calls."""

    def __init__(self):
        self.texts = []

    def encode(self, texts):
        self.texts += texts
        ids = [np.resize(np.frombuffer(t.encode(), np.uint8) % 64, 8) for t in texts]
        return np.stack(ids).astype(np.int32)


def make_scorer(name="loop", **kw):
    tiny = case(name)
    profile = custom_profile(tiny.config, pad=1)
    kw = {"batch_size": 4, "text_batch_size": 4, "tokenizer": Ids(), **kw}
    return tiny, Scorer(
        SiglipModel(tiny.config, tiny.execution), tiny.params, profile=profile, **kw
    )


def pictures(n, res=32):
    return RNG.integers(0, 256, (n, res, res, 3)).astype(np.uint8)


@pytest.fixture
def compilations():
    """A list that grows by one with every XLA compilation."""
    seen = []

    def listen(event, duration, **kw):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("quick_start", [False, True])
def test_equals_the_model(quick_start):
    tiny, scorer = make_scorer(quick_start=quick_start)
    images, texts = np.asarray(tiny.images), np.asarray(tiny.texts)
    zimg, ztxt = scorer.embed_images(images), scorer.embed_texts(texts)
    np.testing.assert_allclose(zimg, tiny.golden["zimg"], rtol=0, atol=EMBEDDING)
    np.testing.assert_allclose(ztxt, tiny.golden["ztxt"], rtol=0, atol=EMBEDDING)
    np.testing.assert_allclose(
        scorer.logits(zimg, ztxt), tiny.golden["logits"], rtol=1e-6, atol=1e-6
    )


def test_uint8_is_normalised_on_the_device():
    _, scorer = make_scorer()
    images = pictures(3)
    as_float = -1 + np.float32(images) / 255 * 2
    np.testing.assert_allclose(
        scorer.embed_images(images), scorer.embed_images(as_float), rtol=0, atol=EMBEDDING
    )
    lowered = scorer.program.lower_images(4).as_text()
    assert "tensor<4x32x32x3xui8>" in lowered


def test_no_batch_after_the_first_compiles(compilations):
    _, scorer = make_scorer()
    scorer.score(pictures(6), LABELS)
    assert compilations  # the listener works
    compilations.clear()
    for n in (1, 3, 4, 9):
        scorer.score(pictures(n), LABELS)
        scorer.embed_texts([f"text {i}" for i in range(n)])
    scorer.score(pictures(2), LABELS[::-1])
    assert compilations == []


def test_padding_of_the_last_batch_is_cut_off():
    _, scorer = make_scorer()
    images = pictures(7)
    whole = scorer.embed_images(images)
    assert whole.shape == (7, 24)
    for i in range(7):
        one = scorer.embed_images(images[i : i + 1])
        np.testing.assert_allclose(one[0], whole[i], rtol=0, atol=EMBEDDING)
    assert scorer.embed_images(images[:0]).shape == (0, 24)


def test_a_generator_of_pictures_equals_an_array():
    _, scorer = make_scorer()
    images = pictures(6)
    # Already of the model's size: preprocessing is the identity.
    got = scorer.embed_images(image for image in images)
    np.testing.assert_allclose(got, scorer.embed_images(images), rtol=0, atol=EMBEDDING)
    assert not np.allclose(got[0], got[1])


def test_naflex_pictures():
    _, scorer = make_scorer("naflex")
    images = [pictures(1, 40)[0], pictures(1, 64)[0][:, :24]]
    patches = [scorer.preprocess(image) for image in images]
    assert patches[0].patches.shape == (25, 192)
    batch = Patches(*(np.stack(leaves) for leaves in zip(*patches, strict=True)))
    np.testing.assert_array_equal(scorer.embed_images(images), scorer.embed_images(batch))


def test_naflex_coordinates_are_checked():
    tiny, scorer = make_scorer("naflex")
    bad = Patches(*map(np.array, tiny.images))
    bad.xidx[0, 3] = 64
    with pytest.raises(ValueError, match=r"column 64, but the model takes at most 64 patches"):
        scorer.embed_images(bad)


def test_bad_pictures_are_reported_and_the_rest_is_scored():
    _, scorer = make_scorer()
    images = list(pictures(6))
    good = scorer.embed_images(np.stack(images[:2] + images[3:5]))
    images[2] = images[5] = b"not a picture"
    reported = {}
    z = scorer.embed_images(images, on_error=reported.__setitem__)
    assert list(reported) == [2, 5]
    assert "not a picture" not in str(reported[2]) and "image" in str(reported[2])
    np.testing.assert_allclose(z[[0, 1, 3, 4]], good, rtol=0, atol=EMBEDDING)
    assert np.isnan(z[[2, 5]]).all()
    with pytest.raises(ValueError, match="image"):
        scorer.embed_images(images)


def test_labels_are_embedded_once():
    _, scorer = make_scorer()
    first = scorer.score(pictures(2), LABELS)
    assert scorer.tokenizer.texts == LABELS
    second = scorer.score(pictures(2), LABELS)
    assert scorer.tokenizer.texts == LABELS
    assert first.labels == second.labels == tuple(LABELS)
    scorer.score(pictures(2), LABELS, ["a photo of {}."])
    assert len(scorer.tokenizer.texts) == 2 * len(LABELS)


def test_templates_average_as_big_vision_does():
    _, scorer = make_scorer()
    templates = ["{}", "a photo of {}.", "two {} {{x}}"]
    got = scorer.embed_labels(LABELS, templates)
    for i, label in enumerate(LABELS):
        z = scorer.embed_texts([t.replace("{}", label) for t in templates]).astype(np.float64)
        mean = z.mean(axis=0)
        expected = mean / (np.linalg.norm(mean) + 1e-8)
        np.testing.assert_allclose(got[i], expected, rtol=0, atol=EMBEDDING)


def test_a_label_may_hold_braces():
    assert expand(["{0}{}"], ["a {}"]) == ["a {0}{}"]
    one = np.float32([[0.6, 0.8]])
    assert average(one, 1) is one


@pytest.mark.parametrize("chunk", [1, 2, 4, 8192])
@pytest.mark.parametrize("labels", [1, 2])
def test_label_chunks_change_nothing(chunk, labels):
    mesh = make_mesh(jax.devices()[:2], model=labels)
    tiny, scorer = make_scorer(label_chunk=chunk, mesh=mesh)
    zimg, ztxt = tiny.golden["zimg"], np.repeat(tiny.golden["ztxt"], 3, axis=0)
    expected = np.asarray(logits(zimg, ztxt, tiny.params["t"], tiny.params["b"]))
    np.testing.assert_allclose(scorer.logits(zimg, ztxt), expected, rtol=1e-6, atol=1e-6)


def test_scores():
    scores = Scores(np.float32([[-200, 0, 3, 3], [200, -1, 1, 0]]), ("a", "b", "c", "d"))
    np.testing.assert_allclose(scores.probabilities[0], [0, 0.5, 0.95257413, 0.95257413])
    assert scores.probabilities.dtype == np.float32 and scores.probabilities[1, 0] == 1
    assert scores.ranking().tolist() == [[2, 3, 1, 0], [0, 2, 3, 1]]
    assert [hit.label for hit in scores.top(2)[1]] == ["a", "c"]


def test_compiles_ahead_of_time_without_weights():
    tiny = case("loop")
    mesh = make_mesh(jax.devices(), model=2)
    program = Program(SiglipModel(tiny.config), mesh)
    assert program.lower_images(16).compile().memory_analysis() is not None
    assert program.lower_texts(16).out_info.shape == (16, 24)
    assert program.lower_logits(16, 64).compile() is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.score(pictures(1), []), r"the list of labels is empty"),
        (lambda s: s.score(pictures(1), ["a", None]), r"labels must be strings; number 1 is None"),
        (
            lambda s: s.score(pictures(1), [float("nan")]),
            r"labels must be strings; number 0 is nan",
        ),
        (lambda s: s.score(pictures(1), ["a", " "]), r"labels\[1\] is empty"),
        (lambda s: s.score(pictures(1), "a dog"), r"labels must be a list .* the string 'a dog'"),
        (lambda s: s.embed_texts("a dog"), r"texts must be a list of strings, got the string"),
        (
            lambda s: s.score(pictures(1), LABELS, ["photo"]),
            r"template 'photo' must hold \{\} once",
        ),
        (lambda s: s.score(pictures(1), LABELS, []), r"templates is empty"),
        (lambda s: s.score(pictures(1), LABELS, "a {}"), r"templates must be a list of strings"),
        (
            lambda s: s.embed_images(np.zeros((32, 32, 3), np.uint8)),
            r"\(n, res, res, 3\), got \(32, 32, 3\); put a single image into a list",
        ),
        (lambda s: s.embed_images("dog.jpg"), r"expected a list of images .* got str"),
        (lambda s: s.embed_images(np.zeros((2, 40, 40, 3), np.uint8)), r"got \(4, 40, 40, 3\)"),
        (lambda s: s.embed_texts(np.full((1, 8), 64)), r"ids must lie in 0\.\.63, got 64\.\.64"),
        (lambda s: s.embed_texts(np.zeros((1, 9), int)), r"shape \(n, 8\), got int64 of shape"),
    ],
)
def test_bad_input(call, message):
    _, scorer = make_scorer()
    with pytest.raises(ValueError, match=message):
        call(scorer)


def test_weights_that_do_not_fit_are_all_named():
    tiny = case("loop")
    del tiny.params["b"]
    tiny.params["extra"] = jnp.zeros(3)
    tiny.params["img"]["embedding"]["bias"] = jnp.zeros(5)
    with pytest.raises(ValueError, match=r"3 problems.*b is missing.*extra is unexpected.*\(5,\)"):
        Scorer(SiglipModel(tiny.config), tiny.params)


def test_missing_parts_are_named():
    tiny = case("loop")
    bare = Scorer(SiglipModel(tiny.config), tiny.params, batch_size=1)
    with pytest.raises(ValueError, match="without a tokenizer takes token ids only"):
        bare.embed_texts(["a dog"])
    with pytest.raises(ValueError, match="without a profile takes ready arrays only"):
        bare.embed_images([pictures(1)[0]])
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Scorer(SiglipModel(tiny.config), tiny.params, batch_size=0)


def test_sharding_rules_are_checked():
    mesh = make_mesh(jax.devices(), model=2)
    with pytest.raises(ValueError, match="model=3 does not divide the 8 devices"):
        make_mesh(model=3)
    place = sharding_of(mesh, [("img/.*", ("data", None)), ("txt/a", ("rows",)), ("t", "spread")])
    assert place("img/kernel", (8, 3)).spec == jax.sharding.PartitionSpec("data", None)
    with pytest.raises(ValueError, match="no sharding rule matches b"):
        place("b", (1,))
    with pytest.raises(ValueError, match="the mesh has no axis 'rows'"):
        place("txt/a", (4,))
    with pytest.raises(ValueError, match="4 devices of axis 'data' do not divide 6"):
        place("img/kernel", (6, 3))
    with pytest.raises(ValueError, match="expected 'replicate', 'fsdp' or 1 axis names"):
        place("t", (1,))


def test_a_real_tokenizer_and_pictures_end_to_end():
    model = FIXTURES / "tiny.model"
    tiny = case("loop")
    rows = 320
    table = RNG.normal(size=(rows, 16)).astype(np.float32)
    tiny.params["txt"]["Embed_0"]["embedding"] = table
    config = dataclasses.replace(
        tiny.config, text=dataclasses.replace(tiny.config.text, vocab_size=rows)
    )
    profile = custom_profile(config, pad=1)
    tokenizer = Tokenizer(model, profile.text)
    scorer = Scorer(
        SiglipModel(config), tiny.params, profile=profile, tokenizer=tokenizer, batch_size=2
    )
    scores = scorer.score([pictures(1, 50)[0]] * 3, ["cat", "dog"])
    assert scores.logits.shape == (3, 2) and np.isfinite(scores.logits).all()
    np.testing.assert_array_equal(scores.logits[0], scores.logits[2])
