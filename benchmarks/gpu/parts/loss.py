"""The ring loss, its gradients, and the device resize, against NumPy."""

import functools

import jax
import numpy as np
from jax.sharding import Mesh
from parts import tests_folder
from parts.device import describe
from results import Results

from siglip_jax.preprocessing import tf_resize
from siglip_jax.preprocessing.device_resize import device_resize
from siglip_jax.training.ring import chunked_sigmoid_loss

tests_folder.importable()
from pairs import PARAMETERS, pairs, sigmoid_reference  # noqa: E402
from tolerances import LOSS_RELATIVE  # noqa: E402

# As the docstring of `device_resize` states it: a grey level, on one pixel in 10,000.
LEVELS, SHARE = 1, 1e-4


def run(results: Results) -> None:
    describe(results)
    for n, chunk in results.scale.pairs:
        for parameters in PARAMETERS:
            what = f"ring loss, {n} pairs, chunk {chunk}, {parameters}"
            with results.attempt(what), jax.default_matmul_precision("highest"):
                ring(results, what, n, chunk, parameters)
    sizes = [((61, 47), (56, 42))]
    if not results.scale.rehearsal:
        sizes += [((375, 500), (224, 224)), ((600, 333), (384, 384)), ((1500, 2000), (512, 512))]
    for size, out in sizes:
        with results.attempt(f"resize {size} to {out}"):
            resize(results, size, out)


def ring(results: Results, what: str, n: int, chunk: int | None, parameters: str) -> None:
    given = pairs(n, d=64, parameters=parameters)
    want, gradients = sigmoid_reference(*given)
    devices = jax.devices()[: 1 if results.scale.rehearsal else None]
    mesh = Mesh(np.array(devices), "data")
    loss = functools.partial(chunked_sigmoid_loss, mesh=mesh, chunk=chunk)
    value, got = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(*given)
    results.check(f"{what}: value", abs(float(value) - want) / abs(want), LOSS_RELATIVE)
    for name, ours, theirs in zip(("zimg", "ztxt", "t", "b"), got, gradients, strict=True):
        off = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
        results.check(f"{what}: gradient of {name}", off, LOSS_RELATIVE)


def resize(results: Results, size: tuple[int, int], out: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    ours = np.asarray(jax.jit(device_resize, static_argnums=(1, 2))(images, *out)).astype(int)
    off = np.abs(ours - np.stack([tf_resize(image, *out) for image in images]))
    results.check(f"resize {size} to {out}: levels", off.max(), LEVELS)
    results.check(f"resize {size} to {out}: share of pixels", (off > 0).mean(), SHARE)
