"""Matmuls of 8 bits on a CPU: what they compute, where they are taken, how far results move."""

import dataclasses
import io
import json
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet
import pytest
from jax.extend.core import jaxprs_in_params
from PIL import Image
from tiny_checkpoint import CONFIG, SIZE, tensors
from tolerances import INT8_COSINE

import siglip_jax
from siglip_jax.checkpoints import find
from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel, activations
from siglip_jax.models.layers import _product_of_bytes
from siglip_jax.programs import Program, make_mesh
from siglip_jax.scoring import Scorer
from siglip_jax.weights.int8 import stored, summed_axes
from siglip_jax.weights.layout import parameter_shapes
from siglip_jax.weights.tree import nested

RNG = np.random.default_rng(0)
HELD_OUT = Path(__file__).parents[1] / "fixtures" / "emoji_heldout.parquet"


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def processor(request, monkeypatch):
    """Whether the processor is one for bytes; results must not depend on which it really is."""
    monkeypatch.setattr(activations, "multiplies_bytes", lambda: request.param)
    return request.param


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(activations, "multiplies_bytes", lambda: True)


def kept(weights):
    """Kernels of the size that trained ones have."""
    flat = {}
    for name, array in tensors().items():
        scale = np.sqrt(SIZE.width) if name.endswith("kernel") else 1
        flat |= stored(name, array / np.float32(scale), weights)
    return nested(flat)


def inputs(config=CONFIG, n=8):
    images = RNG.integers(0, 256, (n, config.vision.res, config.vision.res, 3), np.uint8)
    return images, RNG.integers(2, config.text.vocab_size, (n, config.text.length), np.int32)


def multiplies(traced):
    """How many of its matmuls have bytes on the left."""
    return sum(
        str(eqn.invars[0].aval.dtype) == "uint8"
        for eqn in equations(traced.jaxpr)
        if eqn.primitive.name == "dot_general"
    )


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(inner)


def traced(execution, task="images", **others):
    program = Program(SiglipModel(CONFIG, execution), make_mesh(jax.devices()[:1]), **others)
    given = inputs(n=2)[0 if task == "images" else 1]
    return jax.make_jaxpr(getattr(program, task))(program.abstract_params(), given)


def embedded(params, execution, images, texts, **others):
    scorer = Scorer(SiglipModel(CONFIG, execution), params, batch_size=8, **others)
    return scorer.embed_images(images), scorer.embed_texts(texts)


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ((3, 40), (40, 7)),
        ((1, 40), (40, 7)),
        ((2, 5, 40), (40, 7)),
        ((2, 5, 40), (40, 3, 4)),  # query, key and value
        ((2, 5, 3, 8), (3, 8, 12)),  # out
    ],
)
def test_every_sum_is_within_half_a_step_of_each_input(shape, kernel):
    summed = 2 if len(kernel) == 3 and shape[-2:] == kernel[:2] else 1
    x = np.float32(RNG.standard_normal(shape) * 3 + 1)
    k = RNG.integers(-127, 128, kernel).astype(np.int8)
    got = np.asarray(jax.jit(_product_of_bytes, static_argnums=2)(x, k, summed))
    rows = x.reshape(-1, int(np.prod(shape[-summed:]))).astype(np.float64)
    matrix = k.reshape(rows.shape[1], -1).astype(np.float64)
    steps = (rows.max(1) - rows.min(1))[:, None] / 255
    bound = steps / 2 * np.abs(matrix).sum(0) + 1e-6 * np.abs(rows) @ np.abs(matrix)
    error = np.abs(got.reshape(len(rows), -1) - rows @ matrix)
    assert (error <= bound).all()
    assert error.max() > 0.02 * bound.max()  # and it is rounded
    assert got.shape == shape[: len(shape) - summed] + kernel[summed:]


def test_rows_of_one_number_are_exact_and_what_is_not_finite_stays_in_its_row():
    x = np.float32(RNG.standard_normal((5, 16)))
    x[1], x[2, 3], x[3, 0] = 0.75, np.nan, np.inf
    k = RNG.integers(-127, 128, (16, 6)).astype(np.int8)
    got = np.asarray(jax.jit(_product_of_bytes, static_argnums=2)(x, k, 1))
    np.testing.assert_array_equal(got[1], 0.75 * k.sum(0, dtype=np.float32))
    assert not np.isfinite(got[2:4]).any()
    np.testing.assert_allclose(got[[0, 4]], x[[0, 4]] @ k, atol=20)


# Six matmuls a block, and the six of the MAP head or the one after the last text.
@pytest.mark.parametrize(("task", "count"), [("images", 6 * 3 + 6), ("texts", 6 * 2 + 1)])
def test_auto_is_by_the_processor(task, count, processor):
    int8 = Execution(weights="int8")
    assert multiplies(traced(int8, task)) == (count if processor else 0)
    for other in (dataclasses.replace(int8, activations="float"), Execution()):
        assert multiplies(traced(other, task)) == 0


def test_no_other_device_is_given_bytes(fast):
    """What is exported, compiled ahead of time, or run outside of a scorer is what it was."""
    model = SiglipModel(CONFIG, Execution(weights="int8"))
    program = Program(model, make_mesh(jax.devices()[:1]))
    params, images = program.abstract_params(), inputs(n=2)[0]
    for platform in ("tpu", "cuda", "cpu"):
        with activations.traced_for(platform):
            assert (
                multiplies(jax.make_jaxpr(lambda p, x: program.images(p, x))(params, images)) == 0
            )
    outside = jax.make_jaxpr(lambda p, x: model.apply({"params": p}, x)[0])
    assert multiplies(outside(params, np.float32(images))) == 0


@pytest.mark.skipif(not activations.multiplies_bytes(), reason="the processor has no VNNI")
@pytest.mark.parametrize("quick_start", [False, True])
def test_xla_has_a_kernel_for_it(quick_start, tmp_path, monkeypatch):
    """Else each matmul would be a loop, which is slower than float32: on to a new jax with care."""
    program = Program(
        SiglipModel(CONFIG, Execution(weights="int8")),
        make_mesh(jax.devices()[:1]),
        quick_start=quick_start,
    )
    options = program.images._compiler_options if quick_start else {}
    text = program.lower_images(2).compile(compiler_options=options).as_text()
    dots = [line for line in text.splitlines() if " dot(" in line and "s32[" in line]
    assert len(dots) == 24
    kernel = text.count('"kind":"__ynn_fusion"')
    assert kernel >= len(dots)
    # No kernel of weights is widened: scales and sums alone are float32.
    assert " s32[48,104]" not in text and " s32[48,48]" not in text


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_embeddings_stay_close(scan, dtype, fast):
    form = {"dtype": dtype, "text_dtype": dtype}
    images, texts = inputs()
    exact = embedded(kept(None), Execution(), images, texts)
    params = kept("int8")
    ours = embedded(params, Execution(weights="int8", **form), images, texts)
    floats = Execution(weights="int8", activations="float", **form)
    for z, other, want in zip(ours, embedded(params, floats, images, texts), exact, strict=True):
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
        assert (z * want).sum(axis=1).min() > INT8_COSINE
        assert np.abs(z - other).max() > 1e-7


def test_one_image_and_many_devices_are_the_same(fast):
    images, texts = inputs()
    params, execution = kept("int8"), Execution(weights="int8")
    zimg, ztxt = embedded(params, execution, images, texts)
    alone = Scorer(SiglipModel(CONFIG, execution), params, batch_size=1, text_batch_size=1)
    # A sum of floats in another order may round an activation the other way.
    np.testing.assert_allclose(alone.embed_images(images[:1]), zimg[:1], atol=3e-3)
    np.testing.assert_allclose(alone.embed_texts(texts[:1]), ztxt[:1], atol=3e-3)
    mesh = make_mesh(jax.devices()[:4])
    many = embedded(params, execution, images, texts, mesh=mesh)
    np.testing.assert_allclose(many[0], zimg, atol=3e-3)
    np.testing.assert_allclose(many[1], ztxt, atol=3e-3)


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient"])
def test_explanations_have_gradients(method, fast):
    execution = Execution(weights="int8")
    model = siglip_jax.load("siglip_emoji", execution=execution)
    scorer = model.scorer(batch_size=1, text_batch_size=1)
    picture = next((Path(siglip_jax.__file__).parent / "emoji" / "pictures").iterdir())
    made = scorer.explain(picture, ["brown circle"], method=method)
    exact = siglip_jax.load("siglip_emoji").scorer(batch_size=1, text_batch_size=1)
    want = exact.explain(picture, ["brown circle"], method=method)
    a, b = (np.float64(m.maps).ravel() for m in (made, want))
    assert a @ b > 0.98 * np.linalg.norm(a) * np.linalg.norm(b) > 0


def test_refused():
    with pytest.raises(ValueError, match="activations must be one of auto, float, got 'int8'"):
        Execution(activations="int8")


@pytest.mark.slow
def test_the_bundled_model_names_as_many_drawings(fast):
    """No loss beyond half a point of accuracy on the drawings that it has not seen."""
    table = pyarrow.parquet.read_table(HELD_OUT)
    name = "unseen_combinations"
    captions = json.loads(table.schema.metadata[b"evaluations"])[name]["captions"]
    rows = [each for each in table.to_pylist() if each["evaluation"] == name]
    pictures = [Image.open(io.BytesIO(each["image"])) for each in rows]
    right = {}
    for weights in (None, "int8"):
        model = siglip_jax.load("siglip_emoji", execution=Execution(weights=weights))
        scorer = model.scorer(batch_size=64, text_batch_size=64)
        best = (scorer.embed_images(pictures) @ scorer.embed_texts(captions).T).argmax(axis=1)
        hits = [i in each["right"] for i, each in zip(best, rows, strict=True)]
        right[weights] = np.mean(hits)
    assert right["int8"] > right[None] - 0.005


@pytest.mark.slow
def test_base_of_random_weights(fast):
    config = find("siglip_b16_224").config
    rng, flat, rounded = np.random.default_rng(0), {}, {}
    for name, shape in parameter_shapes(config).items():
        array = rng.standard_normal(shape, np.float32)
        if name.endswith("scale"):
            array = 1 + np.float32(0.1) * array
        elif name.endswith("bias"):
            array *= np.float32(0.02)
        else:
            summed = summed_axes(name) or range(len(shape) - 1)
            array /= np.sqrt(np.float32(np.prod([shape[axis] for axis in summed])))
        flat[name], rounded = array, rounded | stored(name, array, "int8")
    images, texts = inputs(config, 2)
    z = []
    for tree, weights in ((flat, None), (rounded, "int8")):
        model = SiglipModel(config, Execution(weights=weights))
        scorer = Scorer(model, nested(tree), batch_size=2, text_batch_size=2)
        z.append((scorer.embed_images(images), scorer.embed_texts(texts)))
    for ours, exact in zip(z[1], z[0], strict=True):
        assert INT8_COSINE < (ours * exact).sum(axis=1).min() < 1 - 1e-5
