"""The towers against big_vision's numbers, and the errors they raise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import SHARED
from tolerances import ACTIVATION_RELATIVE, BFLOAT16_EMBEDDING, EMBEDDING, LOGIT_RELATIVE
from towers import NAMES, TOWERS, case

from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel, abstract_inputs, check_patches, logits, normalize
from siglip_jax.preprocessing import Patches
from siglip_jax.weights.layout import PREFIX, parameter_shapes
from siglip_jax.weights.load import load_params
from siglip_jax.weights.save import save_params
from siglip_jax.weights.tree import flatten

GOLDENS = SHARED / "goldens" / "big_vision"
SHARED_NAMES = (
    "v1_loop", "v1_img_scan", "v2_scan_crop14", "gopt_asym", "i18n_headless", "naflex",
)  # fmt: skip


def apply(tiny, **kw):
    model = SiglipModel(tiny.config, kw.pop("execution", tiny.execution))
    run = jax.jit(lambda params, i, t: model.apply({"params": params}, i, t, **kw))
    return run(tiny.params, tiny.images, tiny.texts)


def assert_golden(tiny):
    zimg, ztxt, out = apply(tiny)
    golden = tiny.golden
    np.testing.assert_allclose(zimg, golden["zimg"], rtol=0, atol=EMBEDDING)
    np.testing.assert_allclose(ztxt, golden["ztxt"], rtol=0, atol=EMBEDDING)
    scores = logits(zimg, ztxt, out["t/parameter"], out["b"])
    np.testing.assert_allclose(scores, golden["logits"], rtol=LOGIT_RELATIVE, atol=LOGIT_RELATIVE)
    for name in ("img/encoded", "img/pre_logits", "txt/transformed", "txt/pre_logits"):
        if (key := name.replace("/", "_")) in golden:
            limit = ACTIVATION_RELATIVE * np.abs(golden[key]).max()
            np.testing.assert_allclose(out[name], golden[key], rtol=0, atol=limit)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "bfloat16"])
def test_equals_big_vision(name):
    assert_golden(case(name))


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_equals_shared_goldens(name):
    if not GOLDENS.is_dir():
        pytest.skip("the shared golden data is not on this machine")
    assert_golden(case(name, GOLDENS))


@pytest.mark.parametrize("folder", ["npz", "tensorstore"])
@pytest.mark.parametrize("name", [n for n in NAMES if n != "bfloat16"])
def test_loaded_from_disk_equals_big_vision(name, folder, tmp_path):
    """In the form the file does not have, so that it is converted on the way."""
    tiny = case(name)
    path = tiny.path
    if folder == "tensorstore":
        path = tmp_path / "checkpoint.bv"
        save_params(path, tiny.params, step=7)
    run = dataclasses.replace(
        tiny.execution,
        scan_image=not tiny.execution.scan_image,
        scan_text=not tiny.execution.scan_text,
    )
    params = load_params(path, tiny.config, scan_image=run.scan_image, scan_text=run.scan_text)
    assert_golden(tiny._replace(params=params, execution=run))


def test_the_shared_tensorstore_folder_equals_big_vision():
    if not GOLDENS.is_dir():
        pytest.skip("the shared golden data is not on this machine")
    tiny = case("v1_loop", GOLDENS)
    params = load_params(GOLDENS / "tensorstore" / "checkpoint.bv", tiny.config)
    # This folder is v1_loop, but for a position embedding that was trained in bfloat16.
    posemb = jnp.bfloat16(tiny.params["img"]["pos_embedding"])
    np.testing.assert_array_equal(params["img"]["pos_embedding"], posemb)
    params["img"]["pos_embedding"] = tiny.params["img"]["pos_embedding"]
    assert_golden(tiny._replace(params=params))


def test_bfloat16_follows_big_vision():
    tiny = case("bfloat16")
    zimg, ztxt, out = apply(tiny, return_blocks=True)
    np.testing.assert_allclose(zimg, tiny.golden["zimg"], rtol=0, atol=BFLOAT16_EMBEDDING)
    # The text tower has no dtype_mm: it stays float32 whatever the image tower does.
    np.testing.assert_allclose(ztxt, tiny.golden["ztxt"], rtol=0, atol=EMBEDDING)
    assert out["img/stem"].dtype == out["img/encoder"]["block00"]["sa"].dtype == jnp.bfloat16
    # A float32 position embedding promotes the residual stream and all after it.
    for name in ("img/with_posemb", "img/encoded", "img/pre_logits"):
        assert out[name].dtype == jnp.float32
    assert zimg.dtype == jnp.float32
    exact, _, _ = apply(tiny, execution=Execution())
    assert 1e-5 < np.abs(exact - zimg).max() < 2e-2


def test_bfloat16_position_embedding_keeps_the_stream_bfloat16():
    tiny = case("bfloat16")
    tiny.params["img"]["pos_embedding"] = jnp.bfloat16(tiny.params["img"]["pos_embedding"])
    _, _, out = apply(tiny)
    assert out["img/with_posemb"].dtype == jnp.bfloat16
    # encoder_norm has float32 parameters and so returns float32.
    assert out["img/encoded"].dtype == jnp.float32


def test_one_tower_alone():
    tiny = case("loop")
    model = SiglipModel(tiny.config, tiny.execution)
    both = model.apply({"params": tiny.params}, tiny.images, tiny.texts)
    image_only = model.apply({"params": tiny.params}, tiny.images)
    text_only = model.apply({"params": tiny.params}, None, tiny.texts)
    assert image_only[1] is None and text_only[0] is None
    np.testing.assert_array_equal(image_only[0], both[0])
    np.testing.assert_array_equal(text_only[1], both[1])
    np.testing.assert_allclose(both[2]["t"], jnp.exp(tiny.params["t"]), rtol=1e-6)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_model_of_one_tower(tower):
    tiny = case("loop")
    # Not compiled as a whole: XLA makes other programs of one tower and of two, and on some
    # processors their sums are in another order.
    whole = SiglipModel(tiny.config, tiny.execution)
    both = whole.apply({"params": tiny.params}, tiny.images, tiny.texts)
    config, part = tiny.config.only(tower), PREFIX[tower]
    model, index = SiglipModel(config, tiny.execution), 0 if tower == "image" else 1
    params, inputs = {part: tiny.params[part]}, [(tiny.images, None), (None, tiny.texts)]
    z = model.apply({"params": params}, *inputs[index])
    np.testing.assert_array_equal(z[index], both[index])
    assert z[1 - index] is None and "t" not in z[2]
    tree = jax.eval_shape(model.init, jax.random.key(0), *abstract_inputs(config))["params"]
    found = {name: leaf.shape for name, leaf in flatten(tree).items()}
    assert found == parameter_shapes(config)
    with pytest.raises(ValueError, match="tower alone"):
        model.apply({"params": params}, *inputs[1 - index])


@pytest.mark.parametrize("name", ["loop", "scan_crop14"])
def test_blocks_are_returned_when_asked_for(name):
    tiny = case(name)
    _, _, out = apply(tiny)
    assert out["img/encoder"]["block00"] == {}
    _, _, out = apply(tiny, return_blocks=True)
    for blocks in (out["img/encoder"], {k[4:]: v for k, v in out.items() if k[:4] == "txt/"}):
        first, second = blocks["block00"], blocks["block01"]
        np.testing.assert_allclose(first["+sa"] + first["mlp"], first["+mlp"], atol=1e-6)
        np.testing.assert_allclose(first["+mlp"] + second["sa"], second["+sa"], atol=1e-6)
    np.testing.assert_array_equal(
        out["img/encoder"]["pre_ln"], out["img/encoder"]["block01"]["+mlp"]
    )


@pytest.mark.parametrize("name", ["loop", "naflex"])
def test_map_weights_are_a_distribution_over_patches(name):
    tiny = case(name)
    _, _, out = apply(tiny, map_weights=True)
    weights = out["img/map_weights"]
    n = out["img/encoded"].shape[1]
    assert weights.shape == (len(tiny.golden["zimg"]), tiny.config.vision.size.num_heads, n)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    if tiny.config.naflex:
        padding = np.asarray(tiny.images.type) == 0
        assert weights.transpose(0, 2, 1)[padding].max() == 0


def test_the_norm_has_an_epsilon():
    # A row shorter than the epsilon stays short, where clipping or no epsilon would give 1.
    z = normalize(np.float32([[3e-9, 4e-9], [3, 4]]))
    np.testing.assert_allclose(z, [[0.2, 4e-9 / 1.5e-8], [0.6, 0.8]], rtol=1e-5)


def test_gelu_is_the_tanh_form():
    from siglip_jax.models.transformer import Mlp

    # An identity MLP shows the activation itself; at 2.69 the two forms differ by 4.7e-4.
    eye = {"kernel": jnp.eye(1), "bias": jnp.zeros(1)}
    y = Mlp(mlp_dim=1).apply(
        {"params": {"Dense_0": eye, "Dense_1": eye}}, jnp.full((1, 1, 1), 2.69)
    )
    np.testing.assert_allclose(y, jax.nn.gelu(2.69, approximate=True), rtol=1e-6)
    assert abs(float(y[0, 0, 0]) - float(jax.nn.gelu(2.69, approximate=False))) > 4e-4


def test_wrong_shapes_are_named():
    tiny = case("loop")
    model = SiglipModel(tiny.config)
    with pytest.raises(ValueError, match=r"\(b, 32, 32, 3\), got \(1, 40, 40, 3\)"):
        model.apply({"params": tiny.params}, jnp.zeros((1, 40, 40, 3)))
    with pytest.raises(ValueError, match=r"\(b, 8\), got \(2, 5\); pad every text to 8"):
        model.apply({"params": tiny.params}, None, jnp.zeros((2, 5), jnp.int32))


def test_unknown_execution_is_named():
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, got 'fp16'"):
        Execution(dtype="fp16")
    with pytest.raises(ValueError, match=r"attention must be one of .*, got 'flash'"):
        Execution(attention="flash")
    tiny = case("loop")
    with pytest.raises(ValueError, match=r"remat 'all' is none of jax\.checkpoint_policies"):
        apply(tiny, execution=Execution(remat="all"))
    with pytest.raises(ValueError, match="'cudnn' needs bfloat16 or float16, got float32"):
        apply(tiny, execution=Execution(attention="cudnn"))


def test_patches_are_checked_before_the_device():
    tiny = case("naflex")
    patches = Patches(*map(np.array, tiny.images))
    vision = tiny.config.vision
    assert check_patches(patches, vision) is patches
    small = dataclasses.replace(vision, canvas=8)
    with pytest.raises(ValueError, match=r"image 1 has a patch at column 8, .* 8 patches a side"):
        check_patches(patches, small)
    with pytest.warns(UserWarning, match="more than 8 patches a side: .* as transformers does"):
        assert check_patches(patches, small, bounded=False) is patches
    with pytest.raises(ValueError, match=r"image 0 has a patch at row -1"):
        check_patches(patches._replace(yidx=patches.yidx - 1), small, bounded=False)
    with pytest.raises(ValueError, match="image 2 has no patches"):
        kind = np.array(patches.type)
        kind[2] = 0
        check_patches(patches._replace(type=kind), vision)
    with pytest.raises(ValueError, match=r"expected patches of shape \(b, n, 192\)"):
        check_patches(patches._replace(patches=patches.patches[..., :-1]), vision)
    with pytest.raises(ValueError, match=r"expected yidx of shape \(4, 20\), got \(4, 19\)"):
        check_patches(patches._replace(yidx=patches.yidx[:, 1:]), vision)


def test_goldens_cover_every_layout():
    files = {path.name for path in TOWERS.glob("*.npz")}
    assert files == {f"{n}{s}.npz" for n in NAMES for s in ("", ".io")}
