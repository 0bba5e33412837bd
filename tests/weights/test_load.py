"""Strict loading onto devices: what is refused, converted and placed."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tiny_checkpoint import CONFIG, SIZE, bits, tensors, written

from siglip_jax.config import NaFlexVision
from siglip_jax.weights.big_vision import open_big_vision
from siglip_jax.weights.layout import parameter_shapes
from siglip_jax.weights.load import load_params
from siglip_jax.weights.posemb import resample_posemb
from siglip_jax.weights.save import save_params
from siglip_jax.weights.tree import flatten

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


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
    with open_big_vision(written(tmp_path / "x.npz", items)) as reader:
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
