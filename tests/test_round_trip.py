"""Golden checkpoints and random ones through every format and form, bit for bit."""

import dataclasses

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SHARED
from tiny_checkpoint import CONFIG, SIZE, bits, tensors, written
from towers import NAMES, TOWERS, case

from siglip_jax.weights.big_vision import open_big_vision
from siglip_jax.weights.layout import parameter_shapes
from siglip_jax.weights.load import load_params
from siglip_jax.weights.save import save_params
from siglip_jax.weights.tree import flatten

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
FORMS = [(False, False), (True, False), (False, True), (True, True)]


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
    with open_big_vision(tmp_path / "back.npz") as ours, open_big_vision(expected.path) as theirs:
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
    with open_big_vision(path / "b.npz") as reader:
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


def test_layers_of_different_dtypes_stack_without_loss(tmp_path):
    items = tensors()
    name = "img/Transformer/encoderblock_0/LayerNorm_0/bias"
    items[name] = items[name].astype(BFLOAT16)
    params = load_params(written(tmp_path / "x.npz", items), CONFIG, scan_image=True)
    stacked = params["img"]["Transformer"]["encoderblock"]["LayerNorm_0"]["bias"]
    np.testing.assert_array_equal(stacked[0], items[name].astype(np.float32))
    np.testing.assert_array_equal(stacked[1], items[name.replace("block_0", "block_1")])


def test_saving_layers_with_a_gap(tmp_path):
    params = {"img": {"Transformer": {f"encoderblock_{i}": {"x": np.ones(2)} for i in (0, 2)}}}
    with pytest.raises(ValueError, match=r"encoderblock/x: it has only layers \[0, 2\]"):
        save_params(tmp_path / "x.npz", params, scan_image=True)
    assert list(tmp_path.iterdir()) == []
