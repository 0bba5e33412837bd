"""A scan on TPUs: the same numbers, and one layer's weights in bfloat16 at a time."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tolerances import BFLOAT16_EMBEDDING
from towers import case, part

from siglip_jax.models import SiglipModel, transformer
from siglip_jax.models.activations import batches_split_by, traced_for
from siglip_jax.models.stacked_weights import scan_layers
from siglip_jax.programs import make_mesh

RUN = {"dtype": "bfloat16", "text_dtype": "bfloat16", "scan_image": True, "scan_text": True}


def model(which):
    tiny = part(case("scan_crop14"), which)
    return tiny, SiglipModel(tiny.config, dataclasses.replace(tiny.execution, **RUN))


def converted_weights():
    """How often the body of a scan takes a layer's kernel and makes it bfloat16 as it is."""
    tiny, towers = model("whole")
    params = jax.tree.map(jnp.asarray, tiny.params)
    program = jax.make_jaxpr(lambda p: towers.apply({"params": p}, tiny.images, tiny.texts)[:2])
    found, least = 0, min(t.size.width for t in (tiny.config.vision, tiny.config.text)) ** 2
    for scan in (e for e in program(params).eqns if e.primitive.name == "scan"):
        body = scan.params["jaxpr"].jaxpr
        for each in (e for e in body.eqns if e.primitive.name == "convert_element_type"):
            kernel = each.invars[0] in body.invars and each.invars[0].aval.size >= least
            found += kernel and each.params["new_dtype"] == jnp.bfloat16
    return found


def test_a_tpu_is_given_no_weights_that_it_could_convert_before_the_scan():
    with traced_for("tpu"):
        assert converted_weights() == 0
    # Where weights are split, and on other devices, XLA is given what it always was.
    rows = NamedSharding(make_mesh(jax.devices()[:1]), PartitionSpec())
    with traced_for("tpu"), batches_split_by(rows, hold=True):
        assert converted_weights() > 0
    with traced_for("cpu"):
        assert converted_weights() > 0


def test_numbers_and_gradients_are_those_of_a_scan():
    rng = np.random.default_rng(0)
    stacked = {"kernel": jnp.float32(rng.normal(size=(3, 8, 8))), "bias": jnp.ones((3, 1, 8))}
    x = jnp.float32(rng.normal(size=(2, 8)))

    def step(layer, x):
        y = x.astype(jnp.bfloat16) @ layer["kernel"].astype(jnp.bfloat16) + layer["bias"]
        return y.astype(jnp.float32), y[0]

    def run(scan):
        (value, outputs), gradients = jax.value_and_grad(
            lambda *given: (scan(*given)[0].sum(), scan(*given)), argnums=(0, 1), has_aux=True
        )(stacked, x)
        return value, outputs, gradients

    ours = run(lambda stacked, x: scan_layers(step, stacked, x))
    plain = run(lambda stacked, x: jax.lax.scan(lambda x, w: step(w, x), x, stacked))
    jax.tree.map(np.testing.assert_array_equal, ours, plain)


def test_embeddings_are_what_they_were(monkeypatch):
    tiny, towers = model("text")

    def embeddings():
        with traced_for("tpu"):
            return jax.jit(lambda p: towers.apply({"params": p}, None, tiny.texts)[1])(tiny.params)

    ours = embeddings()
    monkeypatch.setattr(transformer, "converts_early", lambda dtype: False)
    np.testing.assert_allclose(ours, embeddings(), rtol=0, atol=BFLOAT16_EMBEDDING)


def test_what_a_tower_returns_has_the_shapes_it_had(monkeypatch):
    tiny, towers = model("whole")

    def shapes():
        def run(params):
            return towers.apply({"params": params}, tiny.images, tiny.texts, return_blocks=True)

        with traced_for("tpu"):
            return jax.eval_shape(run, tiny.params)

    ours = shapes()
    monkeypatch.setattr(transformer, "converts_early", lambda dtype: False)
    assert ours == shapes() and "+mlp" in ours[2]["img/encoder"]["block00"]


COMPILED = """
import jax, jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from siglip_jax.models.stacked_weights import scan_layers
from siglip_jax.programs import make_mesh
from siglip_jax.plan import find_slice

here = SingleDeviceSharding(find_slice("v5e:2x2").devices[0])
# More than the 128 MiB that a chip holds beside its memory.
kernel = jax.ShapeDtypeStruct((64, 2048, 2048), jnp.float32, sharding=here)
x = jax.ShapeDtypeStruct((256, 2048), jnp.float32, sharding=here)

def step(weights, x):
    y = x.astype(jnp.bfloat16) @ weights["kernel"].astype(jnp.bfloat16)
    return y.astype(jnp.float32), None

def ours(kernel, x):
    return scan_layers(step, {"kernel": kernel}, x)[0]

def plain(kernel, x):
    return jax.lax.scan(lambda x, kernel: step({"kernel": kernel}, x), x, kernel)[0]

for function in (ours, plain):
    memory = jax.jit(function).lower(kernel, x).compile().memory_analysis()
    print(memory.temp_size_in_bytes / (2 * kernel.size))
"""


def test_the_compiler_for_tpus_keeps_no_copy_of_all_layers():
    """In a process of its own: libtpu writes to stderr and reads the environment once."""
    pytest.importorskip("libtpu", reason="libtpu, the compiler for TPUs, is not installed")
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    ours, plain = map(float, done.stdout.splitlines())
    assert ours < 0.25
    # Or else nothing of this is needed any more.
    assert plain >= 1
