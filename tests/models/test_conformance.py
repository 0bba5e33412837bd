"""Pairs that must agree: one suite over every way to run the same model."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from tolerances import EMBEDDING
from towers import CASES, case, part

from siglip_jax.config import ATTENTIONS, NaFlexVision
from siglip_jax.models import SiglipModel
from siglip_jax.models.attention import attention, chosen_attention, cudnn_takes
from siglip_jax.models.naflex import resample_posemb
from siglip_jax.preprocessing import Patches
from siglip_jax.programs import FSDP, REPLICATED, make_mesh, sharding
from siglip_jax.scoring import Scorer

FLOAT32 = [name for name in ATTENTIONS if name != "cudnn"]


def embed(tiny, **changes):
    """What the towers give that there are: embeddings, or patches of one without pooling."""
    model = SiglipModel(tiny.config, dataclasses.replace(tiny.execution, **changes))
    zimg, ztxt, out = jax.jit(model.apply)({"params": tiny.params}, tiny.images, tiny.texts)
    if tiny.config.pool == "none":
        assert zimg is None
        # Padding's rows mean nothing, and every implementation has its own.
        return [out["img/encoded"][valid(tiny.images)]]
    return [z for z in (zimg, ztxt) if z is not None]


def valid(images):
    return np.asarray(images.type) == 1 if isinstance(images, Patches) else ...


def assert_same(ours, theirs):
    assert len(ours) > 0
    for z, other in zip(ours, theirs, strict=True):
        # Patches are not of unit norm: relative to the largest of them.
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(z, other, rtol=0, atol=EMBEDDING * scale)


def stacked(params, tower, depth):
    """Loop-layout weights of one tower in scan layout, by hand."""
    flat = flatten_dict(params, sep="/")
    start = f"{tower}/encoderblock"
    out = {k: v for k, v in flat.items() if not k.startswith(f"{start}_")}
    for name in [k for k in flat if k.startswith(f"{start}_0/")]:
        leaf = name.removeprefix(f"{start}_0/")
        out[f"{start}/{leaf}"] = np.stack([flat[f"{start}_{i}/{leaf}"] for i in range(depth)])
    return unflatten_dict(out, sep="/")


@pytest.mark.parametrize(
    ("name", "which"),
    [*(("loop", which) for which in CASES), *(("naflex", w) for w in ("whole", "gap", "none"))],
)
@pytest.mark.parametrize("implementation", FLOAT32)
def test_attention_implementations_agree_on_models(name, which, implementation):
    tiny = part(case(name), which)
    assert_same(embed(tiny, attention=implementation), embed(tiny, attention="einsum"))


@pytest.mark.parametrize("implementation", FLOAT32)
@pytest.mark.parametrize("masked", [False, True])
def test_attention_function(implementation, masked):
    rng = np.random.default_rng(0)
    query, key, value = (jnp.float32(rng.normal(size=(2, n, 3, 8))) for n in (5, 7, 7))
    mask = jnp.asarray(rng.random((2, 5, 7)) < 0.6).at[:, :, 0].set(True) if masked else None
    got = attention(query, key, value, mask, implementation=implementation)
    # Written out with NumPy in float64: independent of everything in the package.
    logits = np.einsum("bqkd,bvkd->bkqv", np.float64(query), np.float64(key)) / np.sqrt(8)
    if masked:
        logits = np.where(np.asarray(mask)[:, None], logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bkqv,bvkd->bqkd", weights, np.float64(value))
    np.testing.assert_allclose(got, expected, rtol=0, atol=EMBEDDING)


@pytest.mark.parametrize("implementation", FLOAT32)
def test_attention_gradients_agree(implementation):
    rng = np.random.default_rng(1)
    x = jnp.float32(rng.normal(size=(2, 5, 3, 8)))
    mask = jnp.ones((2, 5, 5), bool).at[1, :, 3:].set(False)

    def loss(x, how):
        return (attention(x, x * 0.5, x + 1, mask, implementation=how) ** 2).sum()

    got, expected = (jax.grad(loss)(x, how) for how in (implementation, "einsum"))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cudnn attention needs a GPU")
def test_cudnn_attention_agrees_in_bfloat16():
    rng = np.random.default_rng(0)
    q, k, v = (jnp.bfloat16(rng.normal(size=(2, 64, 3, 64))) for _ in range(3))
    got = attention(q, k, v, implementation="cudnn")
    expected = attention(q, k, v, implementation="xla")
    np.testing.assert_allclose(np.float32(got), np.float32(expected), atol=2e-2)


class Card:
    """What jax says of a device, as far as `cudnn_takes` asks."""

    def __init__(self, platform="gpu", capability="9.0"):
        self.platform, self.compute_capability = platform, capability


def arrays(dtype="bfloat16", n=196, head_dim=64):
    return [jax.ShapeDtypeStruct((2, n, 12, head_dim), dtype)] * 2


@pytest.mark.parametrize(
    ("card", "given", "masked", "takes"),
    [
        (Card(), arrays(), False, True),
        (Card(capability="8.0"), arrays("float16", head_dim=72), False, True),
        (Card(), arrays(n=256), True, True),
        (Card(), arrays(n=729), False, True),
        (Card(), arrays(n=729), True, False),  # its gradient has no odd lengths
        (Card(), arrays("float32"), False, False),
        (Card(), arrays(n=1), False, False),
        (Card(), arrays(head_dim=60), False, False),
        (Card(), arrays(head_dim=160), False, False),
        (Card(capability="7.5"), arrays(), False, False),
        (Card(capability="gfx942"), arrays(), False, False),
        (jax.devices("cpu")[0], arrays(), False, False),
        (None, arrays(), False, False),
    ],
)
def test_auto_is_cudnn_where_cudnn_has_it(card, given, masked, takes):
    mask = jnp.ones((2, 1, given[1].shape[1]), bool) if masked else None
    fused = cudnn_takes(card, *given, mask)
    assert fused is takes
    assert chosen_attention("gpu", fused=fused) == ("cudnn" if takes else "matmul")


def test_patches_by_matmul_are_those_by_convolution(monkeypatch):
    """On GPUs, where 384 pixels of patches of 14 leave six over too."""
    tiny = case("scan_crop14")
    by_convolution = embed(tiny)
    monkeypatch.setattr("siglip_jax.models.vision.platform", lambda: "gpu")
    by_matmul = embed(tiny)
    assert any(a.tobytes() != b.tobytes() for a, b in zip(by_matmul, by_convolution, strict=True))
    assert_same(by_matmul, by_convolution)


@pytest.mark.parametrize(("kind", "chosen"), [("cpu", "matmul"), ("tpu", "einsum")])
def test_auto_is_what_was_measured_on_the_device(kind, chosen, monkeypatch):
    monkeypatch.setattr("siglip_jax.models.attention.platform", lambda: kind)
    x = jnp.float32(np.random.default_rng(0).normal(size=(2, 5, 3, 8)))

    def traced(how):
        return str(jax.make_jaxpr(lambda x: attention(x, x, x, implementation=how))(x))

    assert traced("auto") == traced(chosen)
    assert traced("matmul") != traced("einsum")  # on every device


def half(kind, monkeypatch):
    """Embeddings of images in bfloat16 as on a kind of device, and the program."""
    monkeypatch.setattr("siglip_jax.models.layers.platform", lambda: kind)
    tiny = part(case("loop"), "image")
    run = dataclasses.replace(tiny.execution, dtype="bfloat16", attention="matmul")
    model = SiglipModel(tiny.config, run)
    apply = functools.partial(model.apply, {"params": tiny.params})
    return np.float32(jax.jit(apply)(tiny.images)[0]), str(jax.make_jaxpr(apply)(tiny.images))


def dtypes_of(primitive, program):
    return set(re.findall(rf":(\w+)\[[\d,]*\] = {primitive} ", program))


def test_bfloat16_on_a_cpu_is_bfloat16(monkeypatch):
    """Products that give float32 are rounded: no further from float32 than those that do not."""
    exact = embed(part(case("loop"), "image"))[0]
    z, program = half("cpu", monkeypatch)
    other, plain = half("tpu", monkeypatch)
    wide = "preferred_element_type=float32"
    assert program.count(wide) >= plain.count(wide) + 6  # two of the MLP, four of attention
    # A GELU takes what the product gives, and elsewhere what it is rounded to; the MAP head's is
    # float32 everywhere.
    assert "bf16" not in dtypes_of("tanh", program) and "bf16" in dtypes_of("tanh", plain)
    assert np.abs(z - exact).max() <= 1.1 * np.abs(other - exact).max() < 0.02
    np.testing.assert_allclose((z * exact).sum(1), 1, rtol=0, atol=1e-4)


@pytest.mark.parametrize("which", CASES)
def test_loop_equals_scan(which):
    tiny = part(case("loop"), which)
    looped, params = embed(tiny), tiny.params
    towers = {"image": "img/Transformer", "text": "txt/Encoder_0"}
    sizes = {"image": tiny.config.vision, "text": tiny.config.text}
    for tower in tiny.config.towers:
        params = stacked(params, towers[tower], sizes[tower].size.depth)
    assert_same(embed(tiny._replace(params=params), scan_image=True, scan_text=True), looped)


@pytest.mark.parametrize("name", ["loop", "naflex"])
def test_a_tower_alone_is_the_same_tower(name):
    tiny = case(name)
    zimg, ztxt = embed(tiny)
    assert_same(embed(part(tiny, "image")), [zimg])
    assert_same(embed(part(tiny, "text")), [ztxt])


@pytest.mark.parametrize("name", ["loop", "naflex"])
def test_pooling_without_the_head(name):
    """Written out with NumPy: the mean of the patches that whole models give."""
    tiny = case(name)
    model = SiglipModel(tiny.config, tiny.execution)
    out = jax.jit(model.apply)({"params": tiny.params}, tiny.images)[2]
    encoded = np.float64(out["img/encoded"])
    used = valid(tiny.images)
    used = np.ones(encoded.shape[:2], bool) if used is ... else used
    mean = (encoded * used[:, :, None]).sum(1) / used.sum(1)[:, None]
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    assert_same(embed(part(tiny, "gap")), [mean])
    assert_same(embed(part(tiny, "none")), [encoded[valid(tiny.images)].astype(np.float32)])


@pytest.mark.parametrize(
    ("name", "which"),
    [(n, "whole") for n in ("loop", "scan_crop14", "naflex")] + [("loop", w) for w in CASES[1:]],
)
def test_remat_changes_no_gradient(name, which):
    tiny = part(case(name), which)

    def gradient(remat):
        run = dataclasses.replace(tiny.execution, remat=remat)
        model = SiglipModel(tiny.config, run)

        def loss(params):
            zimg, ztxt, out = model.apply({"params": params}, tiny.images, tiny.texts)
            if which == "whole":
                return (zimg @ ztxt.T).sum()
            z = zimg if zimg is not None else out["img/encoded"] if ztxt is None else ztxt
            return (z @ jnp.arange(z.shape[-1], dtype=z.dtype)).sum()

        return jax.jit(jax.grad(loss))(tiny.params)

    plain, remat = (flatten_dict(gradient(r)) for r in (None, "nothing_saveable"))
    for key, leaf in plain.items():
        # Sums of terms as large as the largest element round at its size, not at their own.
        close = max(1e-5, 1e-6 * float(jnp.abs(leaf).max()))
        np.testing.assert_allclose(remat[key], leaf, rtol=0, atol=close, err_msg=str(key))


def test_naflex_on_a_full_grid_equals_fixed():
    """The same weights, a square image cut into a full grid of patches: the same model."""
    tiny = case("loop")
    vision = tiny.config.vision
    grid, patch = vision.grid, vision.patch
    fixed = embed(tiny)[0]
    config = dataclasses.replace(
        tiny.config, vision=NaFlexVision(size=vision.size, patch=patch, posemb_grid=grid)
    )
    params = flatten_dict(tiny.params, sep="/")
    kernel = params["img/embedding/kernel"]
    params["img/embedding/kernel"] = kernel.reshape(-1, kernel.shape[-1])
    params["img/pos_embedding"] = params["img/pos_embedding"].reshape(grid, grid, -1)
    n = len(tiny.images)
    pixels = tiny.images.reshape(n, grid, patch, grid, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    y, x = (np.broadcast_to(a.reshape(-1), (n, grid**2)) for a in np.mgrid[:grid, :grid])
    patches = Patches(pixels.reshape(n, grid**2, -1), np.ones_like(y), y, x)
    flexible = tiny._replace(
        config=config,
        params=unflatten_dict(params, sep="/"),
        images=jax.tree.map(jnp.asarray, patches),
    )
    assert_same([embed(flexible)[0]], [fixed])


@pytest.mark.parametrize("more", [1, 7, 44])
def test_padding_changes_no_naflex_embedding(more):
    tiny = case("naflex")
    rng = np.random.default_rng(more)

    def pad(leaf, noise):
        leaf = np.asarray(leaf)
        shape = (len(leaf), more, *leaf.shape[2:])
        # Garbage in the padding must not matter either.
        extra = rng.normal(size=shape) if noise else np.zeros(shape)
        return jnp.asarray(np.concatenate([leaf, extra.astype(leaf.dtype)], axis=1))

    images = Patches(*(pad(leaf, noise=i == 0) for i, leaf in enumerate(tiny.images)))
    assert_same(embed(tiny._replace(images=images)), embed(tiny))


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (4, 64), (12, 21), (64, 1), (16, 16), (7, 40)])
def test_posemb_equals_scale_and_translate(shape):
    """The form big_vision uses: resize on a 64x64 canvas, then gather."""
    posemb = jnp.float32(np.random.default_rng(0).normal(size=(16, 16, 6)))
    y, x = (jnp.asarray(a.reshape(1, -1)) for a in np.mgrid[: shape[0], : shape[1]])
    canvas = jax.image.scale_and_translate(
        posemb,
        (64, 64, 6),
        (0, 1),
        scale=jnp.float32(shape) / 16,
        translation=jnp.zeros(2),
        method="bilinear",
        antialias=True,
    )
    got = resample_posemb(posemb, y, x)[0]
    np.testing.assert_allclose(got, canvas[y[0], x[0]], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["loop", "scan_crop14", "naflex"])
@pytest.mark.parametrize("layer", ["encoded", 0, 1, 2, -1, -2])
def test_features_are_what_the_blocks_return(name, layer):
    tiny = case(name)
    model = SiglipModel(tiny.config, tiny.execution)
    apply = functools.partial(model.apply, return_blocks=True)
    _, _, out = jax.jit(apply)({"params": tiny.params}, tiny.images)
    depth = tiny.config.vision.size.depth
    states = [out["img/with_posemb"]]
    states += [out["img/encoder"][f"block{i:02d}"]["+mlp"] for i in range(depth)]
    want = out["img/encoded"] if layer == "encoded" else states[layer]
    scorer = Scorer(model, tiny.params, batch_size=2)
    got = scorer.features(jax.tree.map(np.asarray, tiny.images), layer)
    used = valid(tiny.images)
    assert_same([got[used]], [np.float32(want)[used]])


MESHES = {"1x1": (1, 1), "8x1": (8, 1), "4x2": (8, 2), "1x8": (8, 8)}


@pytest.mark.parametrize("rules", [REPLICATED, FSDP], ids=["replicated", "fsdp"])
@pytest.mark.parametrize("mesh", list(MESHES))
@pytest.mark.parametrize(
    ("name", "which"),
    [("loop", "whole"), ("naflex", "whole"), *(("loop", which) for which in CASES[1:])],
)
def test_devices_and_sharded_weights_change_nothing(name, which, mesh, rules, monkeypatch):
    # Tiny parameters would all stay whole under the usual threshold.
    monkeypatch.setattr(sharding.fsdp_spec, "__defaults__", (1,))
    devices, labels = MESHES[mesh]
    if len(jax.devices()) < devices:
        pytest.skip(f"needs {devices} devices")
    tiny = part(case(name), which)
    model, towers = SiglipModel(tiny.config, tiny.execution), tiny.config.towers
    images = jax.tree.map(np.asarray, tiny.images)

    def run(mesh, rules):
        scorer, z = Scorer(model, tiny.params, mesh=mesh, rules=rules, batch_size=4), []
        if tiny.config.pool == "none":
            return scorer, [scorer.features(images)]
        z += [scorer.embed_images(images)] if "image" in towers else []
        z += [scorer.embed_texts(np.asarray(tiny.texts))] if "text" in towers else []
        return scorer, z + ([scorer.logits(*z)] if len(z) == 2 else [])

    scorer, many = run(make_mesh(jax.devices()[:devices], model=labels), rules)
    _, one = run(None, REPLICATED)
    if rules is FSDP and scorer.mesh.shape["data"] > 1 and tiny.config.pool == "map":
        kernel = scorer.params["img"]["MAPHead_0"]["MlpBlock_0"]["Dense_1"]["kernel"]
        assert kernel.addressable_shards[0].data.size * scorer.mesh.shape["data"] == kernel.size
    assert_same(many[:2], one[:2])
    if which == "whole":
        np.testing.assert_allclose(many[2], one[2], rtol=1e-6, atol=1e-6)
