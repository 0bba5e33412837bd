"""The loss round a ring of devices: the dense loss in every number, never its memory."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from pairs import assert_agree, pairs, sigmoid_reference
from tolerances import BFLOAT16_ROUNDING, LOSS_FLOAT64_RELATIVE, LOSS_RELATIVE

from siglip_jax.models import normalize
from siglip_jax.training.loss import sigmoid_loss
from siglip_jax.training.ring import chunked_sigmoid_loss

EVERYTHING = (0, 1, 2, 3)


def mesh_of(*shape):
    names = ("data", "model", "pipeline")[: len(shape)]
    return Mesh(np.array(jax.devices()[: np.prod(shape)]).reshape(shape), names)


def ring(mesh, axes=("data",), chunk=None):
    return functools.partial(chunked_sigmoid_loss, mesh=mesh, axes=axes, chunk=chunk)


def loss_and_gradients(loss):
    return jax.jit(jax.value_and_grad(loss, EVERYTHING))


@functools.cache
def case(n, parameters="at initialisation"):
    inputs = pairs(n, parameters=parameters)
    return inputs, sigmoid_reference(*inputs)


def in_float64(loss, inputs):
    with jax.enable_x64(True):
        got = loss_and_gradients(loss)(*(np.float64(x) for x in inputs))
        assert got[0].dtype == np.float64
        return got


# Devices, batch, chunk. Even and odd rings, and one so short that both ways are the same.
RINGS = [
    (1, 8, None), (2, 8, None), (3, 24, None), (4, 8, None), (5, 40, 4), (6, 24, None),
    (7, 56, 2), (8, 8, None), (8, 64, 4), (1, 64, 16), (2, 64, 1),
]  # fmt: skip


@pytest.mark.parametrize(("devices", "n", "chunk"), RINGS)
def test_equals_dense(devices, n, chunk):
    inputs, want = case(n)
    loss = ring(mesh_of(devices), chunk=chunk)
    assert_agree(loss_and_gradients(loss)(*inputs), want, LOSS_RELATIVE)
    assert_agree(in_float64(loss, inputs), want, LOSS_FLOAT64_RELATIVE)


@pytest.mark.parametrize(("devices", "n", "chunk"), [(8, 4096, 128), (4, 1024, None)])
def test_large_batches(devices, n, chunk):
    inputs, want = case(n, "trained")
    loss = ring(mesh_of(devices), chunk=chunk)
    assert_agree(loss_and_gradients(loss)(*inputs), want, LOSS_RELATIVE)
    if n < 4096:
        assert_agree(in_float64(loss, inputs), want, LOSS_FLOAT64_RELATIVE)


# The batch over all axes, in either order, over one of two, and over two of three.
MESHES = [
    ((2, 4), ("data", "model")), ((2, 4), ("model", "data")), ((4, 2), ("data",)),
    ((2, 3), ("model",)), ((2, 2, 2), ("data", "pipeline")),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "axes"), MESHES)
def test_meshes_with_more_than_one_axis(shape, axes):
    inputs, want = case(48)
    mesh = mesh_of(*shape)
    loss = ring(mesh, axes, chunk=2)
    # Where a trainer has them: the batch split over `axes`, the rest everywhere.
    split, whole = NamedSharding(mesh, PartitionSpec(axes)), NamedSharding(mesh, PartitionSpec())
    places = split, split, whole, whole
    value, gradients = loss_and_gradients(loss)(*map(jax.device_put, inputs, places))
    assert_agree((value, gradients), want, LOSS_RELATIVE)
    for gradient, place in zip(gradients, places, strict=True):
        assert gradient.sharding.is_equivalent_to(place, gradient.ndim)


@pytest.mark.parametrize("axes", [("data", "model"), ("model", "data")])
def test_the_ring_takes_axes_in_the_order_of_the_mesh(axes):
    """Since 0.11 jax refuses another order, in which earlier versions numbered other devices."""
    program = str(jax.make_jaxpr(ring(mesh_of(2, 4), axes))(*case(48)[0]))
    named = re.findall(r"ppermute\[\s*axis_name=\(([^)]*)\)", program)
    assert set(named) == {"'data', 'model'"}


@pytest.mark.parametrize("axes", [("pipeline", "data"), ("model", "pipeline", "data")])
def test_axes_in_any_order_are_those_of_the_batch(axes):
    """Where each pair lies follows `axes`, whatever way the texts go."""
    inputs, want = case(48)
    mesh = mesh_of(2, 2, 2)
    split = NamedSharding(mesh, PartitionSpec(axes))
    placed = [jax.device_put(x, split) for x in inputs[:2]]
    value, gradients = loss_and_gradients(ring(mesh, axes, chunk=3))(*placed, *inputs[2:])
    assert_agree((value, gradients), want, LOSS_RELATIVE)
    assert gradients[0].sharding.is_equivalent_to(split, 2)


def test_float64_on_a_mesh_with_more_than_one_axis():
    inputs, want = case(48)
    got = in_float64(ring(mesh_of(2, 2, 2), ("data", "pipeline"), chunk=2), inputs)
    assert_agree(got, want, LOSS_FLOAT64_RELATIVE)


def test_a_mesh_with_explicit_axes():
    inputs, want = case(48)
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    loss = ring(mesh, ("data", "model"))
    split = NamedSharding(mesh, PartitionSpec(("data", "model")))
    placed = [jax.device_put(x, split) for x in inputs[:2]]
    assert_agree(loss_and_gradients(loss)(*placed, *inputs[2:]), want, LOSS_RELATIVE)


def test_without_jit_and_the_value_alone():
    inputs, (want, _) = case(48)
    loss = ring(mesh_of(4), chunk=3)
    for value in (loss(*inputs), jax.jit(loss)(*inputs)):
        assert value.shape == ()
        np.testing.assert_allclose(value, want, rtol=LOSS_RELATIVE, atol=0)


def test_inside_a_model():
    # Through towers, and not the last operation: gradients meet a cotangent other than 1.
    inputs, _ = case(48)
    weights = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)

    def objective(loss, w, t, b):
        zimg, ztxt = normalize(inputs[0] @ w), normalize(inputs[1] @ w)
        return 3 * loss(zimg, ztxt, t, b) ** 2 + jnp.sum(w**2)

    def of(loss):
        run = jax.jit(jax.value_and_grad(functools.partial(objective, loss), (0, 1, 2)))
        return run(weights, *inputs[2:])

    assert_agree(of(ring(mesh_of(4), chunk=4)), of(sigmoid_loss), LOSS_RELATIVE)


def test_embeddings_in_half_precision():
    (zimg, ztxt, t, b), _ = case(48)
    zimg, ztxt = jnp.bfloat16(zimg), jnp.bfloat16(ztxt)
    want = sigmoid_reference(*(np.float32(x) for x in (zimg, ztxt, t, b)))
    loss, gradients = loss_and_gradients(ring(mesh_of(4)))(zimg, ztxt, t, b)
    assert loss.dtype == np.float32
    assert [x.dtype for x in gradients] == [x.dtype for x in (zimg, ztxt, t, b)]
    np.testing.assert_allclose(loss, want[0], rtol=LOSS_RELATIVE, atol=0)
    # Computed in float32; handed back as the embeddings came, which rounds once.
    for got, exact in zip(gradients[:2], want[1][:2], strict=True):
        limit = BFLOAT16_ROUNDING * np.abs(exact).max()
        np.testing.assert_allclose(np.float32(got), exact, rtol=0, atol=limit)


@functools.cache
def permutation_case(devices):
    return loss_and_gradients(ring(mesh_of(devices), chunk=2))


@settings(max_examples=30, deadline=None)
@given(
    devices=st.sampled_from([3, 4]), seed=st.integers(0, 2**31), order=st.permutations(range(24))
)
def test_which_device_holds_a_pair_does_not_matter(devices, seed, order):
    zimg, ztxt, t, b = pairs(24, seed=seed)
    order = np.array(order)
    loss = permutation_case(devices)
    value, towers = loss(zimg, ztxt, t, b)
    moved, moved_towers = loss(zimg[order], ztxt[order], t, b)
    want = value, [np.asarray(z)[order] for z in towers[:2]]
    assert_agree((moved, moved_towers[:2]), want, LOSS_RELATIVE)


def largest_array(loss, n, d):
    """Elements of the largest array in what XLA compiled for one device."""
    mesh = mesh_of(8)
    split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    placed = [
        jax.ShapeDtypeStruct(shape, np.float32, sharding=sharding)
        for shape, sharding in (((n, d), split), ((n, d), split), ((1,), whole), ((1,), whole))
    ]
    compiled = loss_and_gradients(loss).lower(*placed).compile()
    shapes = re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", compiled.as_text())
    arrays = max(int(np.prod([int(side) for side in shape.split(",")])) for shape in shapes)
    return arrays, compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("chunk", [None, 64])
def test_no_device_holds_more_than_its_own_block(chunk):
    n, d, block = 4096, 32, 512
    arrays, temporary = largest_array(ring(mesh_of(8), chunk=chunk), n, d)
    assert arrays == block * (chunk or block // 2)
    # The dense loss does, and so the measure sees it.
    dense, dense_temporary = largest_array(sigmoid_loss, n, d)
    assert dense >= block * n
    assert dense_temporary > 3 * temporary


def dots(jaxpr):
    return str(jaxpr).count("dot_general[")


def test_the_value_alone_computes_no_gradients():
    inputs, _ = case(48)
    loss = ring(mesh_of(8))
    assert dots(jax.make_jaxpr(loss)(*inputs)) == 1
    gradients = jax.make_jaxpr(lambda *x: jax.vjp(loss, *x)[1](jnp.ones(())))(*inputs)
    assert dots(gradients) == 3


@pytest.mark.parametrize(("devices", "n"), [(1, 8), (2, 16), (3, 24), (8, 64), (8, 8), (4, 36)])
def test_texts_go_both_ways_at_once(devices, n):
    # Half of them each way, where there are halves.
    program = str(jax.make_jaxpr(ring(mesh_of(devices)))(*case(n)[0]))
    block = n // devices
    sent = re.findall(r"f32\[(\d+),16\][^ ]* = ppermute\[\s*[^\]]*perm=\(\(0, (\d+)\)", program)
    both = {(block // 2, 1 % devices), (block // 2, devices - 1)}
    want = {(block, 1)} if block % 2 else both
    assert {(int(size), int(to)) for size, to in sent} == want


ERRORS = [
    (
        30,
        {},
        "a batch of 30 does not divide by the 4 devices of ('data',): use a multiple, such as 32",
    ),
    (
        2,
        {},
        "a batch of 2 does not divide by the 4 devices of ('data',): use a multiple, such as 4",
    ),
    (32, {"chunk": 3}, "chunk=3 does not divide the 8 texts of a device"),
    (32, {"chunk": 0}, "chunk=0 does not divide the 8 texts of a device"),
    (32, {"chunk": 16}, "chunk=16 does not divide the 8 texts of a device"),
    (32, {"axes": ("data", "modal")}, "the mesh has no axis 'modal', only data, model"),
]


@pytest.mark.parametrize(("n", "options", "message"), ERRORS)
def test_what_does_not_divide(n, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        chunked_sigmoid_loss(*pairs(n), mesh=mesh_of(4, 2), **options)


@pytest.mark.parametrize("texts", [(16, 16), (32, 8), (32,)])
def test_images_and_texts_that_are_not_pairs(texts):
    zimg, _, t, b = pairs(32)
    loss = inspect.unwrap(chunked_sigmoid_loss)  # tests alone check shapes before it does
    with pytest.raises(ValueError, match="as many texts as images, equally wide, got"):
        loss(zimg, jnp.ones(texts), t, b, mesh=mesh_of(4, 2))
