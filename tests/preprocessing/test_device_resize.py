"""The device resize against the NumPy one."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pictures import fixtures, scene

from siglip_jax.preprocessing import tf_resize
from siglip_jax.preprocessing.device_resize import device_resize

resize = jax.jit(device_resize, static_argnums=(1, 2))

# (in, out) heights and widths, growing and shrinking.
SIZES = [
    ((375, 500), (224, 224)),
    ((600, 333), (384, 384)),
    ((61, 47), (256, 224)),
    ((30, 30), (30, 30)),
    ((5, 7), (32, 28)),
]


@pytest.mark.parametrize(("size", "out"), SIZES)
def test_equals_numpy_but_for_rare_roundings(size, out):
    images = np.stack([scene(*size, seed) for seed in range(3)])
    ours = np.asarray(resize(images, *out))
    assert ours.dtype == np.uint8 and ours.shape == (3, *out, 3)
    off = np.abs(ours.astype(int) - np.stack([tf_resize(image, *out) for image in images]))
    assert off.max() <= 1
    # The stated limit. Measured on a CPU: 0 on photographs, 1.3e-6 on noise.
    assert (off > 0).mean() < 1e-4


def test_noise():
    images = np.random.default_rng(0).integers(0, 256, (2, 301, 407, 3), np.uint8)
    off = np.abs(
        np.asarray(resize(images, 224, 224)).astype(int)
        - np.stack([tf_resize(image, 224, 224) for image in images])
    )
    assert off.max() <= 1 and (off > 0).mean() < 1e-4


@pytest.mark.parametrize("level", [1, 77, 254, 255])
def test_one_colour_is_exact(level):
    images = jnp.full((1, 375, 500, 3), level, jnp.uint8)
    assert np.unique(resize(images, 224, 384)).tolist() == [level]


@pytest.mark.parametrize("name", ["wide", "tall", "tiny"])
def test_tensorflows_arrays(name):
    arrays = fixtures()
    ours = np.asarray(resize(arrays[f"{name}/in"][None], 56, 56))[0].astype(int)
    off = np.abs(ours - arrays[f"{name}/resize_56x56"])
    assert off.max() <= 1 and (off > 0).mean() < 1e-4


def test_precision_setting_changes_nothing():
    images = scene(100, 130)[None]
    results = []
    for precision in ("highest", "bfloat16"):
        with jax.default_matmul_precision(precision):
            results.append(np.asarray(jax.jit(lambda x: device_resize(x, 64, 48))(images)))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3), np.float32)])
def test_wrong_input(bad):
    resize = inspect.unwrap(device_resize)  # tests alone check shapes before it does
    with pytest.raises(ValueError, match=r"expected \(b, h, w, 3\) uint8 images, got"):
        resize(jnp.asarray(bad), 2, 2)
