"""The doctor finds what is planted."""

import dataclasses

import numpy as np
import pytest
from doctored import doctor, plant, roomy

from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.doctor.embeddings_file import read_embeddings
from siglip_jax.doctor.settings import (
    CHOICES,
    ImageSettings,
    TextSettings,
    apply,
    candidates,
    check,
    choose,
    correct,
    pairs,
    settings_apart,
    with_antialias,
)
from siglip_jax.preprocessing import profile_for

CASES = ("loop", "scan_crop14", "headless", "naflex")
# Pairs that are the same pipeline as one setting: a text padded to itself has no padding to
# choose, to hide or to pool after; hiding padding and pooling before it is not to pad; and
# a text behind its padding, or without an end, is pooled at the last position either way,
# unless padding looks like its end.
SIMPLER = {
    frozenset({("padding", "longest"), ("pad", 0)}): ("padding", "longest"),
    frozenset({("padding", "longest"), ("pad", 1)}): ("padding", "longest"),
    frozenset({("padding", "longest"), ("mask", "padding")}): ("padding", "longest"),
    frozenset({("padding", "longest"), ("pooling", "eos")}): ("padding", "longest"),
    frozenset({("mask", "padding"), ("pooling", "eos")}): ("padding", "longest"),
}
SIMPLER_WITH_PAD_0 = {
    frozenset({("padding", "left"), ("pooling", "eos")}): ("padding", "left"),
    frozenset({("eos", "none"), ("pooling", "eos")}): ("eos", "none"),
}


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_found_where_nothing_is_wrong(name, tower):
    d = doctor(name)
    found = d.diagnose(tower, plant(d, tower, ()))
    assert (found.verdict, found.best.setting, found.ties) == ("same", (), ())


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize(("name", "pad"), [*((name, 1) for name in CASES), ("loop", 0)])
def test_every_setting_alone_is_found(name, pad, tower):
    d = doctor(name, pad=pad)
    settings = d.settings(tower)
    assert len(settings) >= (14 if tower == "text" else 8)
    for setting in settings:
        found = d.diagnose(tower, plant(d, tower, setting))
        assert found.verdict == "explained", setting
        assert len(found.best.setting) == 1, (setting, found.best)
        assert setting in (found.best.setting, *found.ties), (setting, found.best)
        # Only an end that is never added can be one that is cut, where padding is the end.
        assert all({key for key, _ in tie} == {"eos"} for tie in found.ties), setting
        assert found.best.distance < 1e-5 < found.distance


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize(("name", "pad"), [*((name, 1) for name in CASES), ("loop", 0)])
def test_every_pair_of_settings_is_found(name, pad, tower):
    d = doctor(name, pad=pad)
    planted = d._pairs(tower, ())
    simpler = SIMPLER | (SIMPLER_WITH_PAD_0 if pad == 0 else {})
    assert len(planted) >= (80 if tower == "text" else 20)
    for setting in planted:
        found = d.diagnose(tower, plant(d, tower, setting))
        assert found.verdict == "explained", setting
        if one := simpler.get(frozenset(setting)):
            assert found.best.setting == (one,)
            continue
        assert len(found.best.setting) == 2, (setting, found.best)
        assert setting in (found.best.setting, *found.ties), (setting, found.best)


def test_pillows_rounding_of_torchvisions_resize_is_no_fault():
    """transformers resizes by either, and says nothing of it in the folder."""
    d = doctor("loop", system="transformers")
    assert d.right["image"].resize == "torch_bicubic"
    found = d.diagnose("image", plant(d, "image", (("resize", "pil_bicubic"),)))
    assert (found.verdict, found.best.setting) == ("rounded", ())
    assert found.rounding.name == "grey levels"


def test_an_image_setting_and_a_text_setting_are_found_together(tmp_path):
    d = doctor("loop")
    for one, two in (
        (("activation", "erf"), ("activation", "erf")),
        (("resize", "pil_bicubic"), ("padding", "longest")),
        (("normalisation", "clip"), ("lower", "none")),
    ):
        image, text = plant(d, "image", (one,)), plant(d, "text", (two,))
        np.savez(tmp_path / "t.npz", zimg=image, ztxt=text)
        theirs = read_embeddings([tmp_path / "t.npz"], d.config.embed_dim)
        found = {tower: d.diagnose(tower, rows).best.setting for tower, rows in theirs.items()}
        assert found == {"image": (one,), "text": (two,)}


def test_what_is_known_is_not_searched_for():
    """A resolution nobody else has cannot be guessed; once it is said, the rest is found."""
    d = doctor("loop")
    known = (("res", 48),)
    for wrong in ((), (("posemb", "bicubic"),), (("posemb", "bicubic"), ("resize", "pil_bicubic"))):
        theirs = plant(d, "image", known + wrong)
        found = d.diagnose("image", theirs, known)
        assert found.verdict == "explained"
        assert set(found.best.setting) == {*known, *wrong}
    assert d.diagnose("image", theirs).verdict in ("unexplained", "partly")


def test_noise_is_not_explained():
    d = doctor("loop")
    rng = np.random.default_rng(0)
    theirs = rng.normal(size=d.embed(d.right["text"]).shape).astype(np.float32)
    found = d.diagnose("text", theirs)
    assert (found.verdict, found.best.setting) == ("unexplained", ())
    assert found.distance > 0.5 and len(found.nearest) == 5


def test_rows_in_half_precision_and_of_any_length():
    d = doctor("loop")
    theirs = 7 * plant(d, "text", (("lower", "none"), ("padding", "longest")))
    found = d.diagnose("text", theirs.astype(np.float16).astype(np.float32))
    assert set(found.best.setting) == {("lower", "none"), ("padding", "longest")}
    assert found.norms == pytest.approx((7, 7), rel=1e-3)


def test_effects_are_those_on_logits_and_probabilities():
    d = doctor("loop")
    _, params, _ = roomy("loop")
    t, b = np.exp(params["t"][0]), params["b"][0]
    z = {"image": d.embed(d.right["image"]), "text": d.embed(d.right["text"])}
    right = z["image"] @ z["text"].T * t + b
    settings = {"image": (("resize", "pil_bicubic"),), "text": (("lower", "none"),)}
    wrong = {tower: d.embed(apply(d.right[tower], s)) for tower, s in settings.items()}
    both = d.effect(settings)
    logits = wrong["image"] @ wrong["text"].T * t + b
    assert both.max_logit == pytest.approx(np.abs(logits - right).max(), rel=1e-4)
    assert both.mean_logit == pytest.approx(np.abs(logits - right).mean(), rel=1e-4)
    p = 1 / (1 + np.exp(-logits)) - 1 / (1 + np.exp(-right))
    assert both.max_probability == pytest.approx(np.abs(p).max(), rel=1e-3)
    assert both.mean_probability == pytest.approx(np.abs(p).mean(), rel=1e-3)
    assert d.effect({}).max_logit == 0


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda c: c.name)
def test_every_checkpoint_has_its_right_settings_and_wrong_ones(checkpoint):
    for system in ("big_vision", "transformers", "open_clip"):
        profile = profile_for(checkpoint, system)
        image, text = correct(checkpoint.config, profile)
        check(image, text, checkpoint.config)
        assert (text.length, text.pad) == (profile.text.length, profile.text.pad)
        for right in (image, text):
            wrong = candidates(right, checkpoint.config)
            assert {key for key, _ in wrong} >= {f.name for f in dataclasses.fields(right)} - {
                "res",
                "framing",
            }
            for single in wrong:
                settings = apply(right, (single,))
                assert settings_apart(settings, right) == (single,)
                pair = (settings, text) if right is image else (image, settings)
                check(*pair, checkpoint.config)
    image, _ = correct(checkpoint.config, profile_for(checkpoint))
    sizes = {value for key, value in candidates(image, checkpoint.config) if key == "res"}
    if checkpoint.name.endswith("14_384"):
        assert 378 in sizes


def test_choices_are_those_of_the_dataclasses():
    fields = {f.name for kind in (ImageSettings, TextSettings) for f in dataclasses.fields(kind)}
    assert fields - set(CHOICES) == {"res", "pad", "length"} and set(CHOICES) <= fields
    assert list(pairs([("a", 1), ("a", 2), ("b", 3)])) == [
        (("a", 1), ("b", 3)),
        (("a", 2), ("b", 3)),
    ]


def test_misspelled_values_are_offered_near_names():
    with pytest.raises(ValueError, match=r"padding must be .* got 'longst'; did you mean longest"):
        choose("padding", "longst")
    with pytest.raises(ValueError, match="resize pil_bicubic always has antialias here"):
        with_antialias("pil_bicubic", False)
    assert with_antialias("pil_bilinear", False) == "tf_bilinear"
    assert with_antialias("pil_bicubic", True) == "pil_bicubic"


def rounded(z, far, seed=0):
    """Rows about `far` from their own, as rounding moves them: evenly, in no direction."""
    noise = np.random.default_rng(seed).normal(size=z.shape)
    noise *= far / np.linalg.norm(noise, axis=1, keepdims=True)
    return (z + noise).astype(np.float32)


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
def test_a_right_pipeline_in_another_precision_is_right(tower, precision):
    d = doctor("loop", system="transformers")
    right = d.embed(d.right[tower])
    d.diagnose(tower, rounded(right, 1e-3))
    (level,) = (each.distance for each in d._roundings[tower] if each.name == precision)
    found = d.diagnose(tower, rounded(right, level))
    assert (found.verdict, found.best.setting) == ("rounded", ())
    assert found.rounding.name == precision
    # A fault is found behind it, and the rest is named.
    wrong = {"image": ("normalisation", "clip"), "text": ("padding", "longest")}[tower]
    found = d.diagnose(tower, rounded(plant(d, tower, (wrong,)), level))
    assert (found.verdict, found.best.setting) == ("explained", (wrong,))
    assert found.rounding.name == precision


def test_what_is_uneven_is_no_rounding():
    d = doctor("loop")
    right = d.embed(d.right["text"])
    theirs = right.copy()
    theirs[::2] = rounded(right, 5e-3)[::2]
    found = d.diagnose("text", theirs)
    assert (found.verdict, found.rounding) == ("unexplained", None)


@pytest.mark.parametrize("precision", [None, "bfloat16"])
@pytest.mark.parametrize("setting", [(), (("padding", "longest"),)])
def test_most_rows_are_enough(setting, precision):
    d = doctor("loop")
    theirs = plant(d, "text", setting)
    if precision:
        theirs = rounded(theirs, 5e-3)
    theirs[[3, 7]] = theirs[[0, 1]]
    found = d.diagnose("text", theirs)
    assert (found.verdict, found.misfits, found.best.setting) == ("rows", (3, 7), setting)
    assert getattr(found.rounding, "name", None) == precision


def test_sequences_of_naflex():
    image, _ = correct(
        (naflex := next(c for c in CHECKPOINTS if c.config.naflex)).config, profile_for(naflex)
    )
    sizes = {value for key, value in candidates(image, naflex.config) if key == "res"}
    assert sizes == {128, 576, 784, 1024}
