"""PyTorch and the libraries on it, for the parity tests: imported once, and their inputs."""

import functools
import warnings

import jax
import numpy as np
import pytest

from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel


def import_libraries(*names):
    """PyTorch and the modules `names`; skips the calling module where one is not installed."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: run `make parity`")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        return torch, *(pytest.importorskip(name) for name in names)


@functools.cache
def _compiled(config, execution):
    return jax.jit(SiglipModel(config, execution).apply)


def outputs(config, params, images, texts, execution=None):
    """(zimg, ztxt, logits) of ours in float32."""
    zimg, ztxt, out = _compiled(config, execution or Execution())({"params": params}, images, texts)
    logits = zimg @ ztxt.T * out["t"][None] + out["b"][None]
    return tuple(map(np.asarray, (zimg, ztxt, logits)))


def expected(case):
    """`outputs` of a golden case, always in float32."""
    stored = case.execution
    execution = Execution(scan_image=stored.scan_image, scan_text=stored.scan_text)
    return outputs(case.config, case.params, case.images, case.texts, execution)


def agree(theirs, ours):
    """Embeddings within 1e-5; logits too, relative to the largest."""
    for got, want in zip(theirs[:2], ours[:2], strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    np.testing.assert_allclose(theirs[2], ours[2], rtol=0, atol=1e-5 * np.abs(ours[2]).max())


def inputs(config, seed=0, n=3):
    """Random (images, texts) for a model; None for those of a tower that it lacks."""
    from siglip_jax.preprocessing import Patches

    rng = np.random.default_rng(seed)
    text, vision = config.text, config.vision
    texts = text and rng.integers(0, text.vocab_size, (n, text.length)).astype(np.int32)
    if vision is None:
        return None, texts
    if not config.naflex:
        return rng.uniform(-1, 1, (n, vision.res, vision.res, 3)).astype(np.float32), texts
    length = vision.posemb_grid**2
    grids = ((2, 3), (1, 7), (vision.posemb_grid, vision.posemb_grid))[:n]
    patches = np.zeros((n, length, vision.patch**2 * 3), np.float32)
    kind, y, x = np.zeros((3, n, length), np.int32)
    for i, (h, w) in enumerate(grids):
        patches[i, : h * w] = rng.uniform(-1, 1, (h * w, patches.shape[2]))
        kind[i, : h * w] = 1
        y[i, : h * w], x[i, : h * w] = (a.ravel() for a in np.mgrid[:h, :w])
    return Patches(*map(jax.numpy.asarray, (patches, kind, y, x))), texts


def naflex_dict(torch, images):
    """`Patches` as timm's NaFlexVit takes them."""
    coordinates = np.stack([np.asarray(images.yidx), np.asarray(images.xidx)], -1)
    return {
        "patches": torch.tensor(np.asarray(images.patches)),
        "patch_coord": torch.tensor(coordinates).long(),
        "patch_valid": torch.tensor(np.asarray(images.type)).bool(),
    }
