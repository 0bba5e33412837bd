"""Our files through big_vision's own loader, and its files through ours.

Needs a big_vision checkout on PYTHONPATH and the `parity` extra.
"""

import warnings

import jax
import numpy as np
import pytest
from towers import NAMES, case

from siglip_jax.weights.load import load_params
from siglip_jax.weights.posemb import resample_posemb
from siglip_jax.weights.save import save_params
from siglip_jax.weights.tree import flatten

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TensorFlow's and big_vision's own, at import
    bv_utils = pytest.importorskip(
        "big_vision.utils", reason="needs big_vision: run `make parity BIG_VISION=...`"
    )
    bv_vit = pytest.importorskip("big_vision.models.vit")
    from jax.experimental.array_serialization import serialization

# big_vision is not ours to fix; ours stays under the suite's own rule everywhere else.
pytestmark = pytest.mark.filterwarnings("ignore")


def bits(tree):
    # big_vision leaves bfloat16 as it recovers it: numpy arrays or jax ones.
    return {
        name: (np.asarray(leaf).dtype, np.shape(leaf), np.asarray(leaf).tobytes())
        for name, leaf in flatten(tree).items()
    }


@pytest.mark.parametrize("file", ["x.npz", "bare.npz", "compressed.npz", "x.bv"])
@pytest.mark.parametrize("name", NAMES)
def test_big_vision_reads_what_we_write(tmp_path, name, file):
    params = case(name).params
    # The one leaf that training in bfloat16 leaves in bfloat16.
    params["img"]["pos_embedding"] = jax.numpy.bfloat16(params["img"]["pos_embedding"])
    options = {"bare.npz": {"prefix": ""}, "compressed.npz": {"compressed": True}}
    save_params(tmp_path / file, params, **options.get(file, {}))
    assert bits(bv_utils.load_params(str(tmp_path / file))) == bits(params)
    assert bits(bv_utils.load_params(f"{tmp_path / file}:img/MAPHead_0")) == bits(
        params["img"]["MAPHead_0"]
    )


@pytest.mark.parametrize("keep", [True, False])
def test_we_read_what_big_vision_writes(tmp_path, keep):
    expected = case("loop")
    checkpoint = {
        "params": expected.params,
        "opt": {"count": np.int32(3)},
        "chrono": {"accum_train_time": np.float64(1.5)},
    }
    manager = serialization.GlobalAsyncCheckpointManager()
    checkpoint = jax.tree.map(jax.numpy.asarray, checkpoint)
    bv_utils.save_checkpoint_ts(manager, checkpoint, f"{tmp_path}/checkpoint.bv", 7, keep)
    manager.wait_until_finished()
    for path in (tmp_path, tmp_path / "checkpoint.bv"):
        assert bits(load_params(path, expected.config)) == bits(expected.params)


@pytest.mark.parametrize("name", ["x.npz:img", "x.npz:txt", "x.npz"])
def test_scan_to_loop_as_big_vision(tmp_path, name):
    expected = case("scan_crop14")
    save_params(tmp_path / "x.npz", expected.params)
    ours = load_params(f"{tmp_path}/{name}", expected.config, scan_text=True)
    theirs = bv_utils.load_params(f"{tmp_path}/{name}")
    if name == "x.npz":
        theirs["img"] = bv_vit.scan_to_pyloop(theirs["img"])
    elif name == "x.npz:img":
        theirs = bv_vit.scan_to_pyloop(theirs)
    assert bits(ours) == bits(theirs)


@pytest.mark.parametrize(("old", "new"), [(4, 7), (14, 24), (16, 27), (16, 16), (32, 16)])
def test_position_embeddings_as_big_vision(old, new):
    posemb = np.random.default_rng(0).standard_normal((1, old * old, 5)).astype(np.float32)
    theirs = bv_vit.resample_posemb(posemb, np.empty((1, new * new, 5)))
    np.testing.assert_array_equal(resample_posemb(posemb, new * new), theirs)
