"""Memory of the loss and its gradients on TPUs, from XLA's compiler, without a TPU.

    pip install "jax[tpu]" && JAX_PLATFORMS=cpu python benchmarks/loss_memory.py

Only XLA's compiler for TPU (libtpu) is needed; `--cpu` compiles for 8 fake CPU devices
instead. Memory is a chip's, beside inputs and gradients: `temporary` is XLA's
temp_size_in_bytes, HBM only; `live` its peak_memory_in_bytes, less those, which counts
on-chip memory too.

Results: benchmarks/RESULTS.md.
"""

import argparse
import functools
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

if "--cpu" in sys.argv:  # read once, before anything imports jax
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no server is asked which TPU this is

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from siglip_jax.models import logits
from siglip_jax.training.loss import sigmoid_loss
from siglip_jax.training.ring import chunked_sigmoid_loss

SPLIT, WHOLE = PartitionSpec("data"), PartitionSpec()


def on_mesh(mesh: Mesh, local: Callable[..., Any]) -> Callable[..., Any]:
    """The mean of what every device computes from its part of the batch."""

    def mean(zimg: Any, ztxt: Any, t: Any, b: Any) -> Any:
        return lax.pmean(local(zimg, ztxt, t, b), "data")

    return jax.shard_map(mean, mesh=mesh, in_specs=(SPLIT, SPLIT, WHOLE, WHOLE), out_specs=WHOLE)


def block(zimg: Any, ztxt: Any, t: Any, b: Any, first: Any) -> Any:
    """What images have to do with texts of which text `first + i` is image i's, if any."""
    scores = logits(zimg, ztxt, t, b)
    rows, columns = (lax.broadcasted_iota(jnp.int32, scores.shape, axis) for axis in (0, 1))
    labels = jnp.where(rows + first == columns, 1.0, -1.0)
    return -jnp.sum(jax.nn.log_sigmoid(labels * scores)) / len(zimg)


def all_gather(mesh: Mesh) -> Callable[..., Any]:
    """Every device gathers all texts for its own images, as open_clip and others do."""

    def local(zimg: Any, ztxt: Any, t: Any, b: Any) -> Any:
        first = lax.axis_index("data") * len(zimg)
        return block(zimg, lax.all_gather(ztxt, "data", tiled=True), t, b, first)

    return on_mesh(mesh, local)


def plain_ring(mesh: Mesh, remat: bool) -> Callable[..., Any]:
    """The paper's ring, one way, its gradients left to autodiff."""
    meet = jax.checkpoint(block) if remat else block
    route = [(device, (device + 1) % mesh.size) for device in range(mesh.size)]

    def local(zimg: Any, ztxt: Any, t: Any, b: Any) -> Any:
        none = -len(zimg)  # no text is any image's

        def hop(carry: Any, _: Any) -> Any:
            loss, texts = carry
            texts = lax.ppermute(texts, "data", route)
            return (loss + meet(zimg, texts, t, b, none), texts), None

        carry = meet(zimg, ztxt, t, b, 0), ztxt
        (loss, _), _ = lax.scan(hop, carry, length=mesh.size - 1)
        return loss

    return on_mesh(mesh, local)


def variants(mesh: Mesh, n: int) -> dict[str, Callable[..., Any]]:
    ours = functools.partial(chunked_sigmoid_loss, mesh=mesh)
    chunk = min(n, 512)
    return {
        "dense": sigmoid_loss,
        "all-gather": all_gather(mesh),
        "ring, autodiff": plain_ring(mesh, remat=False),
        "ring, remat": plain_ring(mesh, remat=True),
        "ours": ours,
        f"ours, chunk={chunk}": functools.partial(ours, chunk=chunk),
    }


def measure(loss: Callable[..., Any], mesh: Mesh, batch: int, width: int) -> str:
    """One row: temporary memory a device, what is live at once, seconds to compile."""
    split, whole = (NamedSharding(mesh, spec) for spec in (SPLIT, WHOLE))
    z = jax.ShapeDtypeStruct((batch, width), jnp.float32, sharding=split)
    scalar = jax.ShapeDtypeStruct((1,), jnp.float32, sharding=whole)
    program = jax.jit(
        jax.value_and_grad(loss, (0, 1, 2, 3)),
        out_shardings=(whole, (split, split, whole, whole)),
    )
    start = time.perf_counter()
    try:
        memory = program.lower(z, z, scalar, scalar).compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        needed = re.search(r"\(([\d.]+)G\) exceeds available HBM \(([\d.]+)G\)", str(error))
        if not needed:
            raise
        return "does not fit: {} GiB needed, {} there".format(*needed.groups())
    seconds = time.perf_counter() - start
    live = memory.peak_memory_in_bytes - memory.argument_size_in_bytes
    live -= memory.output_size_in_bytes
    at_once = f"{live / 1e6:8.1f} MB" if live > 1e5 else " " * 11  # the CPU's compiler does not say
    return f"{memory.temp_size_in_bytes / 1e6:8.1f} MB {at_once} {seconds:6.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="8 fake CPU devices, no libtpu")
    parser.add_argument("--topology", nargs="+", default=["v5e:2x4", "v5e:16x16"])
    parser.add_argument("--batch", type=int, nargs="+", default=[2**15, 2**18])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--only", default="", help="regular expression for the rows")
    args = parser.parse_args()
    print(f"jax {jax.__version__}, width {args.width}, float32")
    print("                   temporary        live  compile")
    for topology in ["cpu"] if args.cpu else args.topology:
        if args.cpu:
            devices = jax.devices()
        else:
            devices = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices
        mesh = Mesh(np.asarray(devices), "data")
        for batch in args.batch:
            n = batch // mesh.size
            print(f"batch {batch} on {topology}: {mesh.size} devices, n = {n}")
            for name, loss in variants(mesh, n).items():
                if re.search(args.only, name):
                    print(f"  {name:15} {measure(loss, mesh, batch, args.width)}", flush=True)


if __name__ == "__main__":
    main()
