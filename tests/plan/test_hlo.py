"""What is read from HLO text: loops, matrix products, collectives."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from siglip_jax.plan.collectives import collectives
from siglip_jax.plan.hlo import arrays, read_module


def compiled(function, *shapes):
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*inputs).compile()


def test_products_in_loops_count_as_often_as_they_run():
    def scanned(x, w):
        def outer(x, _):
            return jax.lax.fori_loop(0, 3, lambda i, y: jnp.tanh(y @ w), x), None

        return jax.lax.scan(outer, x, length=5)[0]

    module = read_module(compiled(scanned, (8, 16), (16, 16)).as_text())
    assert module.matmul_flops() == (2 * 8 * 16 * 16, 15 * 2 * 8 * 16 * 16)
    assert (module.loops, module.unknown) == (2, ())


def test_a_loop_of_unknown_length_is_said_to_be():
    def unknown(x):
        return jax.lax.while_loop(lambda y: y.sum() < 7, lambda y: y @ y, x)

    module = read_module(compiled(unknown, (4, 4)).as_text())
    assert len(module.unknown) == 1
    assert module.matmul_flops() == (128, 128)


@pytest.mark.parametrize(
    "options",
    [
        {"window_strides": (2, 2), "padding": "VALID"},
        {"window_strides": (1, 1), "padding": [(2, 1), (0, 3)]},
        {"window_strides": (1, 2), "padding": [(1, 2), (0, 1)], "lhs_dilation": (3, 1)},
        {"window_strides": (1, 1), "padding": "SAME", "rhs_dilation": (2, 2)},
    ],
    ids=str,
)
def test_convolutions_count_as_xla_counts(options):
    def conv(x, w):
        return jax.lax.conv_general_dilated(
            x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
        )

    program = compiled(conv, (2, 9, 10, 4), (3, 3, 4, 6))
    once, every = read_module(program.as_text()).matmul_flops()
    assert once == every == program.cost_analysis()["flops"]


def test_products_count_as_xla_counts():
    program = compiled(lambda x, y: jnp.einsum("bik,bkj->bij", x, y), (3, 8, 32), (3, 32, 16))
    once, _ = read_module(program.as_text()).matmul_flops()
    assert once == program.cost_analysis()["flops"] == 2 * 3 * 8 * 32 * 16


def test_bytes_of_a_scan_are_those_of_a_loop():
    def block(x, w):
        return jnp.tanh(x @ w)

    def loop(x, ws):
        for i in range(6):
            x = block(x, ws[i])
        return x

    def scan(x, ws):
        return jax.lax.scan(lambda x, w: (block(x, w), None), x, ws)[0]

    shapes = (64, 64), (6, 64, 64)
    unrolled, scanned = compiled(loop, *shapes), compiled(scan, *shapes)
    module = read_module(scanned.as_text())
    once = scanned.cost_analysis()["bytes accessed"]
    expected = unrolled.cost_analysis()["bytes accessed"]
    assert once < 0.5 * expected
    assert once + module.repeated_bytes() == pytest.approx(expected, rel=0.15)


def test_what_is_no_hlo_is_refused():
    with pytest.raises(ValueError, match="no HLO text: it has no ENTRY"):
        read_module("HloModule nothing\n")


def test_shapes_with_tiles():
    text = "(f32[16,196]{1,0:T(8,128)S(1)}, /*index=5*/bf16[3]{0:T(4,128)(2,1)}, u8[], pred[2])"
    assert arrays(text) == [("f32", (16, 196)), ("bf16", (3,)), ("u8", ()), ("pred", (2,))]


def mesh():
    return Mesh(np.asarray(jax.devices()).reshape(4, 2), ("a", "b"))


def found(function, shape, spec, out):
    where = NamedSharding(mesh(), spec)
    x = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where)
    program = jax.jit(function, out_shardings=NamedSharding(mesh(), out)).lower(x).compile()
    return collectives(read_module(program.as_text()), 8)


def test_collectives_of_known_programs():
    rows, whole = PartitionSpec(("a", "b")), PartitionSpec()
    (gather,) = found(lambda x: x, (16, 4), rows, whole)
    assert gather == ("all-gather", "f32[16,4]", 1, 256, 1, 8)
    (part,) = found(lambda x: x, (16, 4), PartitionSpec("a"), whole)
    assert (part.kind, part.groups, part.group, part.total) == ("all-gather", 2, 4, 256)
    (reduce,) = found(lambda x: x.sum(0), (16, 4), rows, whole)
    assert (reduce.kind, reduce.nbytes, reduce.group) == ("all-reduce", 16, 8)
    assert found(lambda x: x + 1, (16, 4), rows, rows) == []


def test_collectives_in_a_loop_count_as_often_as_they_run():
    def ring(x):
        def hop(x, _):
            return jax.lax.ppermute(x, "a", [(i, (i + 1) % 4) for i in range(4)]), None

        return jax.lax.scan(hop, x, length=3)[0]

    spec = PartitionSpec("a")
    mapped = jax.shard_map(ring, mesh=mesh(), in_specs=spec, out_specs=spec)
    (hop,) = found(mapped, (16, 4), spec, spec)
    assert (hop.kind, hop.array, hop.count, hop.total) == ("collective-permute", "f32[4,4]", 3, 192)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", (4, 2)),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", (2, 4)),
        ("replica_groups=mesh['x'=4,'y'=2] {'x'}", (2, 4)),
        ("replica_groups={}", (1, 8)),
    ],
)
def test_the_ways_to_write_replica_groups(written, expected):
    text = (
        "HloModule m\n\nENTRY %main (p: f32[2,4]) -> f32[16,4] {\n"
        "  %p = f32[2,4]{1,0} parameter(0)\n"
        f"  ROOT %g = f32[16,4]{{1,0}} all-gather(%p), channel_id=1, {written}, dimensions={{0}}\n"
        "}\n"
    )
    (gather,) = collectives(read_module(text), 8)
    assert (gather.groups, gather.group) == expected
    assert re.search(r"^f32\[16,4\]$", gather.array)
