"""Each wrong setting does what it says, shown by another way to the same number."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doctored import LENGTH, doctor, roomy, tokenizer
from tolerances import EMBEDDING

from siglip_jax.doctor.interpolation import interpolated
from siglip_jax.doctor.settings import TextSettings, apply
from siglip_jax.doctor.wrong_inputs import text_inputs
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import ImageProfile, Patches, naflex_patches, preprocess_image
from siglip_jax.preprocessing.images import resize_uint8, to_float
from siglip_jax.scoring import Scorer
from siglip_jax.verify import inputs
from siglip_jax.verify.checks import encode
from siglip_jax.weights.posemb import resample_posemb

PICTURES = list(inputs.pictures().values())
CASES = ("loop", "scan_crop14", "naflex")  # one loop, two scans


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=EMBEDDING)


def texts(d, **settings):
    return d.embed(apply(d.right["text"], tuple(settings.items())))


def images(d, **settings):
    return d.embed(apply(d.right["image"], tuple(settings.items())))


def by_model(model, params, image=None, ids=None):
    run = jax.jit(lambda params, *inputs: model.apply({"params": params}, *inputs))
    return run(params, image, ids)[0 if ids is None else 1]


@pytest.mark.parametrize(
    ("name", "system"),
    [
        *((name, "big_vision") for name in CASES),
        *(
            (name, system)
            for name in ("loop", "naflex")
            for system in ("transformers", "open_clip")
        ),
    ],
)
def test_the_right_settings_give_what_the_scorer_gives(name, system):
    model, params, profile = roomy(name, system=system)
    d, scorer = doctor(name, system=system), Scorer(model, params, profile=profile)
    close(images(d), scorer.embed_images(PICTURES))
    close(texts(d), scorer.embed_texts(encode(tokenizer(profile), inputs.TEXTS)))


@pytest.mark.parametrize("name", ["loop", "naflex"])
def test_exact_gelu(name, monkeypatch):
    d = doctor(name)
    wrong = images(d, activation="erf"), texts(d, activation="erf")
    right = images(d), texts(d)
    model, params, profile = roomy(name)
    monkeypatch.setattr(nn, "gelu", lambda x, approximate: jax.nn.gelu(x, approximate=False))
    scorer = Scorer(model, params, profile=profile)
    expected = (
        scorer.embed_images(PICTURES),
        scorer.embed_texts(encode(tokenizer(profile), inputs.TEXTS)),
    )
    for a, b, c in zip(wrong, expected, right, strict=True):
        close(a, b)
        assert np.abs(a - c).max() > 3 * EMBEDDING


def test_padding_to_the_longest_is_a_shorter_sequence():
    d, (model, params, profile) = doctor(), roomy()
    rows = texts(d, padding="longest")
    encoded = encode(tokenizer(profile), inputs.TEXTS)
    for row, ids in list(zip(rows, encoded, strict=True))[::4]:
        n = min(int((ids == 1).argmax()) + 1, LENGTH)
        shorter = dataclasses.replace(model.config.text, length=n)
        small = SiglipModel(dataclasses.replace(model.config, text=shorter), model.execution)
        cut = {**params["txt"], "pos_embedding": params["txt"]["pos_embedding"][:, :n]}
        close(row, by_model(small, {**params, "txt": cut}, ids=ids[None, :n])[0])


def test_a_shorter_context_is_a_model_with_one():
    d, (model, params, profile) = doctor(), roomy()
    short = dataclasses.replace(model.config.text, length=12)
    small = SiglipModel(dataclasses.replace(model.config, text=short), model.execution)
    cut = {**params["txt"], "pos_embedding": params["txt"]["pos_embedding"][:, :12]}
    text = dataclasses.replace(profile.text, length=12)
    ids = encode(tokenizer(dataclasses.replace(profile, text=text)), inputs.TEXTS)
    close(texts(d, length=12), by_model(small, {**params, "txt": cut}, ids=ids))


def test_pooling_at_the_end_of_the_text():
    d, (model, params, profile) = doctor(), roomy()
    ids = encode(tokenizer(profile), inputs.TEXTS)
    out = model.apply({"params": params}, None, ids)[2]
    at_end = out["txt/transformed"][np.arange(len(ids)), (ids == 1).argmax(1)]
    head = params["txt"]["head"]
    z = at_end @ head["kernel"] + head["bias"][None]
    close(texts(d, pooling="eos"), z / jnp.linalg.norm(z, axis=1, keepdims=True))


def test_a_mask_hides_padding_from_attention():
    d = doctor()
    masked = d.embed(apply(d.right["text"], (("mask", "padding"),)))
    # Other ids where nobody may look; the last position, which is pooled, stays.
    rows = text_inputs([[5, 6, 7]], d.right["text"], LENGTH)
    hidden = rows._replace(keys=np.arange(LENGTH)[None] < 4)
    other = hidden._replace(ids=hidden.ids.copy())
    other.ids[0, 4:-1] = 9
    close(d.towers.texts(hidden, "tanh"), d.towers.texts(other, "tanh"))
    seen = rows._replace(ids=other.ids)
    assert np.abs(d.towers.texts(seen, "tanh") - d.towers.texts(rows, "tanh")).max() > 1e-3
    assert np.abs(masked - texts(d)).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "ids", "keys", "pool"),
    [
        ({}, [7, 8, 1, 3, 3, 3], 6, 5),
        ({"padding": "left"}, [3, 3, 3, 7, 8, 1], 6, 5),
        ({"padding": "longest"}, [7, 8, 1], 3, 2),
        ({"length": 4}, [7, 8, 1, 3], 4, 3),
        ({"length": 2}, [7, 1], 2, 1),
        ({"length": 2, "eos": "cut"}, [7, 8], 2, 1),
        ({"eos": "none"}, [7, 8, 3, 3, 3, 3], 6, 5),
        ({"mask": "padding"}, [7, 8, 1, 3, 3, 3], 3, 5),
        ({"pooling": "eos"}, [7, 8, 1, 3, 3, 3], 6, 2),
        ({"pooling": "eos", "eos": "none"}, [7, 8, 3, 3, 3, 3], 6, 5),
        ({"pooling": "eos", "pad": 1, "padding": "left"}, [1, 1, 1, 7, 8, 1], 6, 0),
    ],
)
def test_ids_as_the_settings_say(settings, ids, keys, pool):
    given = {"pad": 3, "length": 6, "lower": "none", "punctuation": "keep", **settings}
    rows = text_inputs([[7, 8]], TextSettings(**given), 6)
    assert rows.ids[0, : len(ids)].tolist() == ids
    assert (int(rows.keys.sum()), rows.keys[0, 0], int(rows.pool[0])) == (keys, True, pool)


def test_a_mask_follows_padding_on_the_left():
    settings = TextSettings(
        pad=3, length=6, lower="none", punctuation="keep", padding="left", mask="padding"
    )
    assert text_inputs([[7, 8]], settings, 6).keys.tolist() == [[False] * 3 + [True] * 3]


def test_another_resolution_is_what_loading_at_it_gives():
    d, (model, params, profile) = doctor(), roomy()
    larger = SiglipModel(model.config.at_resolution(48), model.execution)
    table = resample_posemb(params["img"]["pos_embedding"], 36)
    grown = {**params, "img": {**params["img"], "pos_embedding": table}}
    pixels = np.stack([to_float(preprocess_image(p, profile.image, 48)) for p in PICTURES])
    close(images(d, res=48), by_model(larger, grown, pixels))


def test_pixels_beyond_whole_patches():
    """384 px and 378 px are the same patches of 14, but not of the same resize."""
    d, (model, params, profile) = doctor("scan_crop14"), roomy("scan_crop14")
    pixels = np.stack([to_float(preprocess_image(p, profile.image, 56)) for p in PICTURES])
    wrong = images(d, res=56)
    close(wrong, by_model(model, params, pixels))
    assert np.abs(wrong - images(d)).max() > 1e-3


@pytest.mark.parametrize(
    ("method", "jax_method", "antialias"),
    [("bilinear", "bilinear", False), ("bicubic_antialias", "cubic", True)],
)
def test_naflex_position_embedding(method, jax_method, antialias):
    d, (model, params, profile) = doctor("naflex"), roomy("naflex")
    vision = model.config.vision
    table = jnp.asarray(params["img"]["pos_embedding"])
    rows = images(d, posemb=method)
    batches = []
    for picture in PICTURES:
        one = naflex_patches(picture, profile.image, vision.patch)
        used = int(one.type.sum())
        grid = int(one.yidx.max()) + 1, int(one.xidx.max()) + 1
        # The model for exactly this grid: its own resampling then does nothing.
        resized = jax.image.resize(table, (*grid, table.shape[2]), jax_method, antialias=antialias)
        side = max(grid)
        square = jnp.zeros((side, side, table.shape[2])).at[: grid[0], : grid[1]].set(resized)
        at = square[one.yidx[:used], one.xidx[:used]]
        # Undo what the model adds, then add this.
        right = interpolated(np.asarray(table), *grid, "bilinear_antialias")
        kernel = params["img"]["embedding"]["kernel"]
        shift = at - right[one.yidx[:used], one.xidx[:used]]
        moved = np.zeros_like(one.patches)
        moved[:used] = np.linalg.lstsq(kernel.T, np.asarray(shift).T, rcond=None)[0].T
        batches.append(Patches(*one._replace(patches=one.patches + moved)))
    batch = jax.tree.map(lambda *parts: np.stack(parts), *batches)
    np.testing.assert_allclose(rows, by_model(model, params, batch), rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("method", "size", "expected"),
    [
        ("bilinear", 2, [2.875, 8.125, 32.125, 50.875]),
        ("bilinear_antialias", 2, [4.59375, 9.90625, 29.90625, 44.59375]),
        ("bicubic", 2, [1.43076, 6.52237, 32.39737, 53.18076]),
        ("bicubic_antialias", 2, [2.87117, 8.19785, 30.28452, 47.04453]),
        ("bilinear", 4, [0, 0.625, 2.125, 4, 5.625, 8.59375, 12.90625, 17.125]),
        ("bicubic", 4, [-0.68686, -0.5641, 0.91175, 2.6771, 2.49059, 4.78462, 9.65483, 13.59144]),
        (
            *("bicubic_antialias", 4),
            [-0.50601, -0.22833, 1.26734, 3.04333, 3.5198, 6.02156, 10.75674, 14.7568],
        ),
    ],
)
def test_interpolation_is_torchs(method, size, expected):
    """`torch.nn.functional.interpolate(align_corners=False)` of squares, first two rows."""
    table = np.float32([[0, 1, 4], [9, 16, 25], [36, 49, 64]])[..., None]
    got = interpolated(table, size, size, method)[:2, :, 0].ravel()
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_normalisations():
    d, (model, params, profile) = doctor(), roomy()
    pixels = np.stack([preprocess_image(p, profile.image) for p in PICTURES]) / np.float32(255)
    close(images(d, normalisation="zero_one"), by_model(model, params, pixels))
    clip = (pixels - np.float32([0.48145466, 0.4578275, 0.40821073])) / np.float32(
        [0.26862954, 0.26130258, 0.27577711]
    )
    close(images(d, normalisation="clip"), by_model(model, params, clip))


def test_center_crop_is_torchvisions():
    d, (model, params, _) = doctor(), roomy()
    profile = ImageProfile(decode="pillow", resize="tf_bilinear", res=32)
    # 32 px of the shorter side: 480x640 becomes 32x42, of which columns 5 to 36 stay.
    whole = resize_uint8(PICTURES[0], 32, 42, profile)[:, 5:37]
    expected = by_model(model, params, to_float(whole)[None])
    close(images(d, framing="center_crop")[:1], expected)
