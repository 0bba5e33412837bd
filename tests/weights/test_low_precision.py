"""Weights in bfloat16 and int8: what is rounded, how far results move, what is refused."""

import dataclasses
import functools
import json
from typing import Any

import command_line
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from tiny_checkpoint import CONFIG, SIZE, tensors, written
from towers import NAMES, case

from siglip_jax.config import Execution, NaFlexVision
from siglip_jax.models import SiglipModel
from siglip_jax.models.layers import of_any_weights
from siglip_jax.preprocessing import custom_profile
from siglip_jax.pretrained import save
from siglip_jax.programs import FSDP, Program, make_mesh, sharding_of
from siglip_jax.scoring import Scorer
from siglip_jax.training.recipe_file import read_recipe
from siglip_jax.weights.int8 import int8_shapes, quantized, stored, summed_axes
from siglip_jax.weights.layout import parameter_shapes
from siglip_jax.weights.load import load_params
from siglip_jax.weights.tree import flatten

# pytest looks for fixtures among the names of a module.
cli, model, pictures, surroundings = (
    command_line.cli,
    command_line.model,
    command_line.pictures,
    command_line.surroundings,
)
RNG = np.random.default_rng(0)


def params_of(tmp_path, weights, config=CONFIG, **form):
    path = tmp_path / "tiny.npz"
    if not path.exists():
        items = tensors(config)
        for name, array in items.items():  # Kernels of the size that trained ones have.
            if name.endswith("kernel"):
                array /= np.sqrt(SIZE.width)
        written(path, items)
    return load_params(path, config, weights=weights, **form)


@pytest.mark.parametrize("name", parameter_shapes(CONFIG))
def test_what_shares_a_scale_is_what_is_summed(name):
    axes, parts = summed_axes(name), name.split("/")
    if parts[-1] == "kernel" and name != "img/embedding/kernel":
        channels = {"query": 2, "key": 2, "value": 2}.get(parts[-2], 1)
        ndim = len(parameter_shapes(CONFIG)[name])
        assert sorted(axes) == list(range(-ndim, -channels))
    else:
        assert axes == ((-1,) if parts[-1] == "embedding" else ())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("txt/head/kernel", (40, 7)),
        ("img/Transformer/encoderblock/MlpBlock_0/Dense_0/kernel", (3, 40, 7)),
        ("img/Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel", (12, 3, 4)),
        ("img/Transformer/encoderblock/MultiHeadDotProductAttention_0/out/kernel", (1, 3, 4, 12)),
        ("txt/Embed_0/embedding", (5, 2**19)),  # more than is rounded at a time
    ],
)
def test_half_a_step_is_the_largest_error(name, shape):
    array = RNG.standard_normal(shape, np.float32)
    parts = stored(name, array, "int8")
    values, scale = parts[name], parts[f"{name}_scale"]
    assert values.dtype == np.int8 and scale.dtype == np.float32
    assert {k: v.shape for k, v in parts.items()} == int8_shapes({name: shape})
    assert np.abs(values * scale - array).max() <= 0.5001 * scale.max()
    # Each channel uses the whole range, and -128 is never used.
    assert (np.abs(values.astype(int)).max(axis=summed_axes(name)) == 127).all()


def test_zeros_stay_zero_and_what_is_not_finite_is_refused():
    values, scale = quantized(np.zeros((4, 3), np.float32), (-2,))
    assert not values.any() and (scale == 1).all()
    bad = np.ones((4, 3), np.float32)
    bad[0, 0] = np.nan
    with pytest.raises(ValueError, match="txt/head/kernel holds values that are not finite"):
        stored("txt/head/kernel", bad, "int8")


class Around(nn.Module):
    """A module with one layer, as the layers of a model are in theirs."""

    make: Any

    @nn.compact
    def __call__(self, x):
        return of_any_weights(self.make(name="one"))(jnp.asarray(x))


@pytest.mark.parametrize(
    ("make", "kernel", "axes", "shape"),
    [
        (functools.partial(nn.Dense, 7), (12, 7), (-2,), (2, 12)),
        (functools.partial(nn.Dense, 7), (12, 7), (-2,), (2, 5, 12)),
        (functools.partial(nn.DenseGeneral, (3, 4)), (12, 3, 4), (-3,), (2, 5, 12)),
        (
            functools.partial(nn.DenseGeneral, 7, axis=(-2, -1)),
            (3, 4, 7),
            (-3, -2),
            (2, 5, 3, 4),
        ),
    ],
)
def test_dense_layers_are_those_of_the_rounded_kernel(make, kernel, axes, shape):
    values, scale = quantized(RNG.standard_normal(kernel, np.float32), axes)
    bias = RNG.standard_normal(kernel[len(axes) :], np.float32)
    x = RNG.standard_normal(shape, np.float32)
    int8 = {"kernel": values, "kernel_scale": scale, "bias": bias}
    ours = Around(make).apply({"params": {"one": int8}}, x)
    rounded = make().apply({"params": {"kernel": values * scale, "bias": bias}}, x)
    np.testing.assert_allclose(ours, rounded, rtol=1e-5, atol=1e-5)


def test_embeddings_are_those_of_the_rounded_table():
    values, scale = quantized(RNG.standard_normal((9, 4), np.float32), (-1,))
    params = {"one": {"embedding": values, "embedding_scale": scale}}
    layer = Around(functools.partial(nn.Embed, 9, 4))
    ids = np.array([[0, 8, 3]])
    np.testing.assert_array_equal(layer.apply({"params": params}, ids), (values * scale)[ids])
    assert np.isnan(layer.apply({"params": params}, np.array([9]))).all()


def test_what_is_loaded(tmp_path):
    whole, half, eighth = (flatten(params_of(tmp_path, w)) for w in (None, "bfloat16", "int8"))
    assert {v.dtype for v in whole.values()} == {np.dtype("float32")}
    coarse = {name for name, leaf in half.items() if leaf.dtype == ml_dtypes.bfloat16}
    assert coarse == half.keys() - {"t", "b"}
    small = {name for name, leaf in eighth.items() if leaf.dtype == np.int8}
    assert small == {name for name in whole if summed_axes(name)}
    assert {k: v.shape for k, v in eighth.items()} == int8_shapes(parameter_shapes(CONFIG))
    for name in whole.keys() - small:
        np.testing.assert_array_equal(eighth[name], whole[name])
    again = flatten(params_of(tmp_path, "float32"))
    assert all(np.array_equal(again[name], whole[name]) for name in whole)


def test_scanned_layers_are_rounded_as_single_ones(tmp_path):
    loop = flatten(params_of(tmp_path, "int8"))
    scan = flatten(params_of(tmp_path, "int8", scan_image=True, scan_text=True))
    for leaf in ("query/kernel", "query/kernel_scale", "out/kernel", "out/kernel_scale"):
        block = f"MultiHeadDotProductAttention_0/{leaf}"
        stacked = scan[f"img/Transformer/encoderblock/{block}"]
        for layer in range(SIZE.depth):
            one = loop[f"img/Transformer/encoderblock_{layer}/{block}"]
            np.testing.assert_array_equal(stacked[layer], one)


def inputs(config=CONFIG, n=8):
    images = RNG.integers(0, 256, (n, config.vision.res, config.vision.res, 3), np.uint8)
    return images, RNG.integers(2, config.text.vocab_size, (n, config.text.length), np.int32)


def rounded(params):
    """The same tree in float32, every int8 tensor multiplied out."""
    flat = flatten(params)
    tree = {}
    for name, leaf in flat.items():
        if name.endswith("_scale"):
            continue
        scale = flat.get(f"{name}_scale")
        node, (*path, last) = tree, name.split("/")
        for key in path:
            node = node.setdefault(key, {})
        whole = np.asarray(leaf, np.float32) * (1 if scale is None else np.asarray(scale))
        node[last] = jnp.asarray(whole)
    return tree


@pytest.mark.parametrize("scan", [False, True])
def test_int8_scores_are_those_of_the_rounded_weights(tmp_path, scan):
    form = {"scan_image": scan, "scan_text": scan}
    params = params_of(tmp_path, "int8", **form)
    # Activations of 8 bits: models/test_int8_activations.
    execution = Execution(weights="int8", activations="float", **form)
    ours = Scorer(SiglipModel(CONFIG, execution), params, batch_size=8)
    plain = Scorer(SiglipModel(CONFIG, Execution(**form)), rounded(params), batch_size=8)
    images, texts = inputs()
    np.testing.assert_allclose(ours.embed_images(images), plain.embed_images(images), atol=2e-5)
    np.testing.assert_allclose(ours.embed_texts(texts), plain.embed_texts(texts), atol=2e-5)


@pytest.mark.parametrize("name", ["naflex", "naflex_scan"])
def test_naflex_in_int8(name, tmp_path):
    naflex = next((n for n in NAMES if isinstance(case(n).config.vision, NaFlexVision)), None)
    assert naflex, "one of the fixtures is a NaFlex model"
    plain = case(naflex)
    scan = name.endswith("scan")
    form = {"scan_image": scan, "scan_text": scan}
    params = load_params(plain.path, plain.config, weights="int8", **form)
    model = SiglipModel(plain.config, Execution(weights="int8", **form))
    zimg, ztxt, _ = model.apply({"params": params}, plain.images, plain.texts)
    exact = SiglipModel(plain.config, Execution(**form)).apply(
        {"params": rounded(params)}, plain.images, plain.texts
    )
    np.testing.assert_allclose(zimg, exact[0], atol=2e-5)
    np.testing.assert_allclose(ztxt, exact[1], atol=2e-5)


# Least cosine with float32; 1 - cosine is the square of a relative error of about 1e-2.
@pytest.mark.parametrize(
    ("execution", "least"),
    [
        (Execution(weights="bfloat16"), 0.999),
        (Execution(weights="bfloat16", dtype="bfloat16", text_dtype="bfloat16"), 0.999),
        (Execution(weights="int8"), 0.999),
        (Execution(weights="int8", dtype="bfloat16", text_dtype="bfloat16"), 0.999),
    ],
)
@pytest.mark.parametrize("scan", [False, True])
def test_embeddings_stay_close_and_of_length_one(tmp_path, execution, least, scan):
    form = {"scan_image": scan, "scan_text": scan}
    execution = dataclasses.replace(execution, **form)
    whole = Scorer(SiglipModel(CONFIG, Execution(**form)), params_of(tmp_path, None, **form))
    params = params_of(tmp_path, execution.weights, **form)
    ours = Scorer(SiglipModel(CONFIG, execution), params)
    images, texts = inputs()
    for z, exact in (
        (ours.embed_images(images), whole.embed_images(images)),
        (ours.embed_texts(texts), whole.embed_texts(texts)),
    ):
        assert z.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
        cosine = (z * exact).sum(axis=1)
        assert least < cosine.min() < 1 - 1e-8, cosine


def test_split_over_devices(tmp_path):
    mesh = make_mesh(jax.devices()[:4])
    place = sharding_of(mesh, FSDP)
    params = params_of(tmp_path, "int8", sharding=place)
    model = SiglipModel(CONFIG, Execution(weights="int8", activations="float"))
    many = Scorer(model, params, mesh=mesh, rules=FSDP, batch_size=8)
    one = Scorer(model, params_of(tmp_path, "int8"), batch_size=8)
    images, _ = inputs()
    np.testing.assert_allclose(many.embed_images(images), one.embed_images(images), atol=1e-5)


def test_a_program_is_lowered_for_the_weights_it_gets():
    program = Program(SiglipModel(CONFIG, Execution(weights="int8")), make_mesh(jax.devices()[:1]))
    leaves = flatten(program.abstract_params())
    assert leaves["txt/head/kernel"].dtype == jnp.int8
    assert leaves["txt/head/kernel_scale"].shape == (1, 48)
    assert leaves["t"].dtype == jnp.float32
    assert program.lower_images(batch=2).out_info.shape == (2, 48)


def test_a_model_and_weights_of_another_kind(tmp_path):
    with pytest.raises(ValueError, match="kernel_scale is missing"):
        Scorer(SiglipModel(CONFIG, Execution(weights="int8")), params_of(tmp_path, None))
    with pytest.raises(ValueError, match="kernel_scale is unexpected"):
        Scorer(SiglipModel(CONFIG), params_of(tmp_path, "int8"))


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="got 'int4'; did you mean int8"):
        Execution(weights="int4")
    with pytest.raises(ValueError, match="remat is for training, and int8 weights have no grad"):
        Execution(weights="int8", remat="nothing_saveable")
    model = SiglipModel(CONFIG, Execution(weights="int8"))
    with pytest.raises(ValueError, match="int8 weights are rounded while loading"):
        save(tmp_path / "x", model, {}, profile=custom_profile(CONFIG, pad=1))
    assert not (tmp_path / "x").exists()


def test_load_takes_one_word_for_it(tmp_path):
    import siglip_jax

    params = params_of(tmp_path, None)
    profile = custom_profile(CONFIG, pad=1)
    save(tmp_path / "tiny", SiglipModel(CONFIG), params, profile=profile)
    with pytest.raises(ValueError, match="both say how to store the weights; give one"):
        siglip_jax.load(
            tmp_path / "tiny", dtype="bfloat16", execution=Execution(weights="bfloat16")
        )
    loaded = siglip_jax.load(tmp_path / "tiny", execution=Execution(weights="int8"))
    images, _ = inputs()
    z = loaded.scorer(tokenizer=False).embed_images(images)
    exact = siglip_jax.load(tmp_path / "tiny").scorer(tokenizer=False).embed_images(images)
    assert 0.999 < (z * exact).sum(axis=1).min() < 1 - 1e-8


@pytest.mark.parametrize("weights", ["int8", "bfloat16"])
def test_training_keeps_float32_weights(tmp_path, weights):
    path = tmp_path / "recipe.toml"
    path.write_text(
        'seed = 0\nsteps = 1\nbatch = 2\n[data]\ntrain = "x"\n[init]\nmodel = "siglip_b16_224"\n'
        f'[execution]\nweights = "{weights}"\n'
    )
    with pytest.raises(ValueError, match=rf"execution.weights='{weights}' is for scoring"):
        read_recipe(path)


@pytest.mark.usefixtures("surroundings")
def test_the_command_line_says_what_it_ran(cli, model, pictures):
    def score(*options):
        code, out, err = cli(
            "score", pictures / "b.png", "--model", model, "--labels", "a cat", "--json", *options
        )
        assert (code, err) == (0, [])
        got = json.loads(out)
        return got["weights"], got["images"][0]["scores"][0]["logit"]

    stored_as, exact = score()
    assert stored_as == "as stored"
    for options in (["int8"], ["bfloat16"], ["bfloat16", "--dtype", "bfloat16"]):
        weights, logit = score("--weights", *options)
        assert weights == options[0]
        assert logit != exact and abs(logit - exact) < 0.05 * abs(exact)
    code, _, err = cli("score", "b.png", "--model", model, "--labels", "x", "--weights", "int4")
    assert code == 2 and "invalid choice: 'int4'" in err[-1]
