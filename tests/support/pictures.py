"""Pictures and reference arrays that several test files use."""

import io

import numpy as np
import pytest
from paths import FIXTURES, SHARED
from PIL import Image

SHARED_GOLDENS = SHARED / "goldens" / "preprocess" / "preprocess.npz"

needs_goldens = pytest.mark.skipif(
    not SHARED_GOLDENS.exists(), reason="../shared/goldens/preprocess is not here"
)


def fixtures() -> dict[str, np.ndarray]:
    """TensorFlow's and big_vision's arrays, from fixtures/make_preprocessing.py."""
    with np.load(FIXTURES / "preprocessing.npz") as arrays:
        return dict(arrays)


def goldens() -> dict[str, np.ndarray]:
    """Arrays of three systems, from the folder that comes with some checkouts."""
    with np.load(SHARED_GOLDENS) as arrays:
        return dict(arrays)


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A gradient with noise, uint8."""
    y, x = np.mgrid[0:height, 0:width] / 9
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1) * 100 + 128
    noise = np.random.default_rng(seed).normal(0, 10, waves.shape)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    """The bytes of `image` as a file of format `form`."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
