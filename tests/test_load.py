"""Strict loading onto devices, its conversions, and saving back."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from towers import NAMES, SHARED, TOWERS, case

from siglip_jax.config import NaFlexVision, Siglip, Size, Text, Vision
from siglip_jax.weights.layout import parameter_shapes
from siglip_jax.weights.load import flatten, load_params
from siglip_jax.weights.npz import write_npz
from siglip_jax.weights.posemb import resample_posemb
from siglip_jax.weights.save import save_params
from siglip_jax.weights.source import open_source

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
GOLDENS = SHARED / "goldens" / "big_vision"
SHARED_NAMES = (
    "v1_loop",
    "v1_img_scan",
    "v2_scan_crop14",
    "gopt_asym",
    "i18n_headless",
    "naflex",
)
SIZE = Size(width=48, depth=3, mlp_dim=104, num_heads=4)
CONFIG = Siglip(
    vision=Vision(size=SIZE, patch=8, res=32),
    text=Text(size=dataclasses.replace(SIZE, depth=2), vocab_size=50, length=16, head=48),
)
FORMS = [(False, False), (True, False), (False, True), (True, True)]


def tensors(config=CONFIG, seed=0, **form):
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(config, **form)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def written(path, items):
    write_npz(path, items.items())
    return path


def bits(params):
    return {k: (v.dtype, v.shape, np.asarray(v).tobytes()) for k, v in flatten(params).items()}


def golden(folder, name):
    if not folder.exists():
        pytest.skip("needs ../shared/goldens/big_vision")
    return case(name, folder)


@pytest.mark.parametrize("scan", FORMS)
@pytest.mark.parametrize(
    ("folder", "name"),
    [(TOWERS, n) for n in NAMES] + [(GOLDENS, n) for n in SHARED_NAMES],
    ids=lambda value: value if isinstance(value, str) else value.parent.name,
)
def test_every_golden_loads_in_every_form_and_saves_back(tmp_path, folder, name, scan):
    expected = golden(folder, name)
    params = load_params(expected.path, expected.config, scan_image=scan[0], scan_text=scan[1])
    wanted = parameter_shapes(expected.config, scan_image=scan[0], scan_text=scan[1])
    assert {k: v.shape for k, v in flatten(params).items()} == wanted
    stored = expected.execution
    form = {"scan_image": stored.scan_image, "scan_text": stored.scan_text}
    save_params(tmp_path / "back.npz", params, **form)
    assert bits(load_params(tmp_path / "back.npz", expected.config, **form)) == bits(
        load_params(expected.path, expected.config, **form)
    )
    with open_source(tmp_path / "back.npz") as ours, open_source(expected.path) as theirs:
        assert ours.shapes == theirs.shapes
        assert all(ours.read(n).tobytes() == theirs.read(n).tobytes() for n in ours.shapes)


def test_the_tensorstore_golden():
    expected = golden(GOLDENS, "v1_loop")
    params = load_params(GOLDENS / "tensorstore", expected.config)
    assert params["img"]["pos_embedding"].dtype == jnp.bfloat16
    assert params["t"].dtype == jnp.float32


@pytest.mark.parametrize("name", ["x.bv", "x.npz", "compressed.npz", "bare.npz"])
def test_every_format_keeps_every_bit(tmp_path, name):
    params = tensors()
    params["img/pos_embedding"] = params["img/pos_embedding"].astype(BFLOAT16)
    params = load_params(written(tmp_path / "source.npz", params), CONFIG)
    options = {"compressed.npz": {"compressed": True}, "bare.npz": {"prefix": ""}}
    save_params(tmp_path / name, params, **options.get(name, {}))
    assert bits(load_params(tmp_path / name, CONFIG)) == bits(params)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(FORMS), st.sampled_from(FORMS), st.integers(0, 99))
def test_forms_convert_both_ways(tmp_path_factory, stored, wanted, seed):
    form = dict(zip(("scan_image", "scan_text"), stored, strict=True))
    items = tensors(seed=seed, **form)
    path = tmp_path_factory.mktemp("forms")
    params = load_params(
        written(path / "a.npz", items), CONFIG, scan_image=wanted[0], scan_text=wanted[1]
    )
    save_params(path / "b.npz", params, **form)
    with open_source(path / "b.npz") as reader:
        assert reader.shapes.keys() == items.keys()
        assert all(reader.read(n).tobytes() == items[n].tobytes() for n in items)


def test_layers_keep_their_order(tmp_path):
    # Ten layers and more: "encoderblock_10" sorts before "encoderblock_2".
    config = dataclasses.replace(
        CONFIG, vision=dataclasses.replace(CONFIG.vision, size=dataclasses.replace(SIZE, depth=12))
    )
    items = tensors(config)
    params = load_params(written(tmp_path / "x.npz", items), config, scan_image=True)
    stacked = params["img"]["Transformer"]["encoderblock"]["LayerNorm_0"]["scale"]
    for layer in range(12):
        name = f"img/Transformer/encoderblock_{layer}/LayerNorm_0/scale"
        np.testing.assert_array_equal(stacked[layer], items[name])


def test_all_problems_in_one_error(tmp_path):
    items = tensors()
    items["txt/head/bais"] = items.pop("txt/head/bias")
    items["t"] = np.ones((1, 1), np.float32)
    items["img/extra"] = np.ones(2, np.float32)
    items["b"] = items["b"].astype(np.float64)
    with pytest.raises(ValueError, match="problem") as error:
        load_params(written(tmp_path / "x.npz", items), CONFIG)
    assert str(error.value).splitlines() == [
        f"{tmp_path / 'x.npz'} does not fit the model: 5 problems",
        "  missing: txt/head/bias (48,) (near: txt/head/bais)",
        "  unexpected: txt/head/bais (48,) (near: txt/head/bias)",
        "  unexpected: img/extra (2,)",
        "  wrong shape: t is (1, 1), expected (1,)",
        "  wrong dtype: b is float64, expected float32; pass dtype to convert it",
    ]


def test_an_unrelated_file_is_described_briefly(tmp_path):
    path = written(tmp_path / "x.npz", {f"layer{i}": np.ones(1, np.float32) for i in range(30)})
    with pytest.raises(ValueError, match=r"138 problems") as error:
        load_params(path, CONFIG)
    assert len(str(error.value).splitlines()) == 23
    assert "  missing: and 98 more" in str(error.value)
    assert "  unexpected: and 20 more" in str(error.value)


def test_integers_are_no_weights(tmp_path):
    items = {**tensors(), "b": np.ones(1, np.int32)}
    np.savez(tmp_path / "x.npz", **items)
    with pytest.raises(ValueError, match=r"wrong dtype: b is int32, expected a float$"):
        load_params(tmp_path / "x.npz", CONFIG, dtype="float32")


def test_a_layer_missing_in_the_file_or_in_the_model(tmp_path):
    items = tensors()
    items.pop("txt/Encoder_0/encoderblock_1/LayerNorm_0/bias")
    with pytest.raises(ValueError, match=r"1 problem\n  missing: .*encoderblock_1/LayerNorm_0/b"):
        load_params(written(tmp_path / "x.npz", items), CONFIG, scan_text=True)
    deeper = dataclasses.replace(CONFIG.vision, size=dataclasses.replace(SIZE, depth=4))
    items = tensors(dataclasses.replace(CONFIG, vision=deeper), scan_image=True)
    with pytest.raises(ValueError, match=r"scale is \(4, 48\), expected \(3, 48\)"):
        load_params(written(tmp_path / "x.npz", items), CONFIG)


def test_dtype_converts_every_parameter(tmp_path):
    items = tensors(scan_image=True)
    items["b"] = items["b"].astype(np.float64)
    params = flatten(load_params(written(tmp_path / "x.npz", items), CONFIG, dtype="bfloat16"))
    assert {leaf.dtype for leaf in params.values()} == {BFLOAT16}
    np.testing.assert_array_equal(
        params["txt/head/kernel"], items["txt/head/kernel"].astype(BFLOAT16)
    )


def test_layers_of_different_dtypes_stack_without_loss(tmp_path):
    items = tensors()
    name = "img/Transformer/encoderblock_0/LayerNorm_0/bias"
    items[name] = items[name].astype(BFLOAT16)
    params = load_params(written(tmp_path / "x.npz", items), CONFIG, scan_image=True)
    stacked = params["img"]["Transformer"]["encoderblock"]["LayerNorm_0"]["bias"]
    np.testing.assert_array_equal(stacked[0], items[name].astype(np.float32))
    np.testing.assert_array_equal(stacked[1], items[name.replace("block_0", "block_1")])


def test_the_second_text_position_embedding_is_added(tmp_path):
    items = tensors()
    items["txt/Encoder_0/pos_embedding"] = np.full((1, 16, 48), 0.1, np.float32)
    params = load_params(written(tmp_path / "x.npz", items), CONFIG)
    assert "pos_embedding" not in params["txt"]["Encoder_0"]
    np.testing.assert_array_equal(
        params["txt"]["pos_embedding"], items["txt/pos_embedding"] + np.float32(0.1)
    )
    items["txt/Encoder_0/pos_embedding"] = np.ones((1, 15, 48), np.float32)
    with pytest.raises(ValueError, match=r"unexpected: txt/Encoder_0/pos_embedding \(1, 15, 48\)"):
        load_params(written(tmp_path / "x.npz", items), CONFIG)


@pytest.mark.parametrize("scan", [False, True])
def test_one_tower(tmp_path, scan):
    items = tensors(scan_image=True)
    path = written(tmp_path / "x.npz", items)
    whole = load_params(path, CONFIG, scan_image=scan, scan_text=scan)
    for part in ("img", "txt"):
        tower = load_params(f"{path}:{part}", CONFIG, scan_image=scan, scan_text=scan)
        assert bits(tower) == bits(whole[part])
    encoder = load_params(f"{path}:img/Transformer", CONFIG, scan_image=scan)
    assert bits(encoder) == bits(whole["img"]["Transformer"])
    items.pop("img/embedding/bias")
    with pytest.raises(ValueError, match=r"x\.npz:img does not .*: 1 problem\n  missing: img/emb"):
        load_params(f"{written(path, items)}:img", CONFIG)
    load_params(f"{path}:txt", CONFIG)


def test_sharding_is_asked_by_full_name(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    asked = {}

    def sharding(name, shape):
        asked[name] = shape
        return NamedSharding(mesh, PartitionSpec())

    items = tensors()
    params = load_params(
        f"{written(tmp_path / 'x.npz', items)}:img", CONFIG, scan_image=True, sharding=sharding
    )
    wanted = parameter_shapes(CONFIG, scan_image=True)
    assert asked == {name: shape for name, shape in wanted.items() if name.startswith("img/")}
    assert params["embedding"]["bias"].sharding == NamedSharding(mesh, PartitionSpec())


def test_sharded_weights_load_and_save(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def sharding(name, shape):
        if shape[-1] % 8:
            return jax.devices()[3]
        return NamedSharding(mesh, PartitionSpec(*[None] * (len(shape) - 1), "data"))

    path = written(tmp_path / "x.npz", tensors())
    params = load_params(path, CONFIG, sharding=sharding)
    kernel = params["txt"]["head"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (48, 6)
    assert params["t"].devices() == {jax.devices()[3]}
    assert bits(params) == bits(load_params(path, CONFIG))
    fresh = load_params(path, CONFIG, sharding=sharding)
    save_params(tmp_path / "y.npz", fresh)
    # Saving must not leave a host copy of every parameter behind.
    assert all(leaf._npy_value is None for leaf in flatten(fresh).values())
    assert bits(load_params(tmp_path / "y.npz", CONFIG)) == bits(params)


def test_a_loaded_parameter_may_be_donated(tmp_path):
    # On the CPU a parameter may be the very buffer that the reader filled.
    params = load_params(written(tmp_path / "x.npz", tensors()), CONFIG, scan_image=True)
    before = np.array(params["txt"]["Embed_0"]["embedding"])
    doubled = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree), donate_argnums=0)(params)
    np.testing.assert_array_equal(doubled["txt"]["Embed_0"]["embedding"], 2 * before)


class Counting:
    """A reader that counts what is read of it."""

    def __init__(self, reader):
        self.reader, self.reads = reader, []

    def __getattr__(self, name):
        return getattr(self.reader, name)

    def read(self, name):
        self.reads.append(name)
        return self.reader.read(name)


@pytest.mark.parametrize("stored", [False, True])
def test_every_tensor_is_read_once_and_the_largest_first(tmp_path, stored):
    items = tensors(scan_image=stored, scan_text=stored)
    calls = []
    with open_source(written(tmp_path / "x.npz", items)) as reader:
        counting = Counting(reader)
        load_params(
            counting,
            CONFIG,
            scan_image=not stored,
            scan_text=not stored,
            progress=lambda *call: calls.append(call),
        )
        assert sorted(counting.reads) == sorted(items)
        assert reader.read("t").shape == (1,), "a reader that was passed in stays open"
    total = sum(array.nbytes for array in items.values())
    assert calls[-1] == (total, total)
    steps = np.diff([0] + [done for done, _ in calls])
    assert list(steps) == sorted(steps, reverse=True)


RESIZES = [(4, 6), (6, 4), (4, 4), (3, 9), (14, 24), (16, 27), (16, 32), (1, 4), (5, 1)]


@pytest.mark.parametrize(("old", "new"), RESIZES)
def test_resampling_equals_scipy_bit_for_bit(old, new):
    ndimage = pytest.importorskip("scipy.ndimage")
    posemb = np.random.default_rng(old).standard_normal((1, old * old, 7)).astype(np.float32)
    zoomed = ndimage.zoom(posemb.reshape(old, old, 7), (new / old, new / old, 1), order=1)
    ours = resample_posemb(posemb, new * new)
    assert ours.tobytes() == zoomed.reshape(1, new * new, 7).tobytes()


@pytest.mark.parametrize(("old", "new"), [(32, 16), (16, 30), (24, 22), (8, 26)])
def test_sizes_where_scipy_loses_the_edge(old, new):
    posemb = np.random.default_rng(0).standard_normal((1, old * old, 3)).astype(np.float32)
    with pytest.warns(UserWarning, match=f"{old} x {old} to {new} x {new} leaves the last row"):
        ours = resample_posemb(posemb, new * new).reshape(new, new, 3)
    assert not ours[-1].any() and not ours[:, -1].any() and ours[:-1, :-1].all()
    ndimage = pytest.importorskip("scipy.ndimage")
    zoomed = ndimage.zoom(posemb.reshape(old, old, 3), (new / old, new / old, 1), order=1)
    # Equal as numbers: scipy's zeros there carry no sign.
    np.testing.assert_array_equal(ours, zoomed)


def test_resampling_golden():
    # From scipy 1.17.1: zoom of this 3 x 3 grid to 4 x 4, so that a machine without it checks too.
    grid = np.float32([0.1, -2.5, 3.3, 7.7, 0.01, -1, 5, 6, -8]).reshape(1, 9, 1)
    expected = np.float32(
        [
            0.1,
            -1.6333333,
            -0.56666666,
            3.3,
            5.1666665,
            1.1711111,
            -0.40666667,
            0.4333333,
            6.7999997,
            3.6044445,
            0.22666667,
            -3.3333333,
            5.0,
            5.6666665,
            1.3333334,
            -8.0,
        ]
    )
    assert resample_posemb(grid, 16)[0, :, 0].tobytes() == expected.tobytes()


def test_narrow_dtypes_are_resampled_in_float32():
    posemb = np.random.default_rng(0).standard_normal((1, 16, 8)).astype(BFLOAT16)
    ours = resample_posemb(posemb, 25)
    assert ours.dtype == BFLOAT16
    expected = resample_posemb(posemb.astype(np.float32), 25).astype(BFLOAT16)
    assert ours.tobytes() == expected.tobytes()


def test_resampling_needs_squares():
    with pytest.raises(ValueError, match="cannot resample 15 position embeddings to 16"):
        resample_posemb(np.ones((1, 15, 2), np.float32), 16)


def test_another_resolution_only_when_asked(tmp_path):
    items = tensors()
    path = written(tmp_path / "x.npz", items)
    larger = CONFIG.at_resolution(48)
    with pytest.raises(ValueError, match=r"\(1, 16, 48\), expected \(1, 36, 48\); to resample it"):
        load_params(path, larger)
    for source in (path, f"{path}:img"):
        params = flatten(load_params(source, larger, resize_posemb=True))
        name = "pos_embedding" if "pos_embedding" in params else "img/pos_embedding"
        np.testing.assert_array_equal(params[name], resample_posemb(items["img/pos_embedding"], 36))
    same = load_params(path, CONFIG, resize_posemb=True)
    assert bits(same) == bits(load_params(path, CONFIG))


def test_neither_naflex_nor_text_is_resampled(tmp_path):
    naflex = NaFlexVision(size=SIZE, patch=8, posemb_grid=5)
    config = dataclasses.replace(CONFIG, vision=naflex)
    path = written(tmp_path / "x.npz", tensors(config))
    other = dataclasses.replace(config, vision=dataclasses.replace(naflex, posemb_grid=4))
    with pytest.raises(ValueError, match=r"pos_embedding is \(5, 5, 48\), expected \(4, 4, 48\)$"):
        load_params(path, other, resize_posemb=True)
    other = dataclasses.replace(config, text=dataclasses.replace(config.text, length=9))
    with pytest.raises(
        ValueError, match=r"txt/pos_embedding is \(1, 16, 48\), expected \(1, 9, 48\)$"
    ):
        load_params(path, other, resize_posemb=True)


def test_saving_layers_with_a_gap(tmp_path):
    params = {"img": {"Transformer": {f"encoderblock_{i}": {"x": np.ones(2)} for i in (0, 2)}}}
    with pytest.raises(ValueError, match=r"encoderblock/x: it has only layers \[0, 2\]"):
        save_params(tmp_path / "x.npz", params, scan_image=True)
    assert list(tmp_path.iterdir()) == []
