"""Memory of the loss and its gradients on TPUs, from XLA's compiler, without a TPU.

    pip install "jax[tpu]" && JAX_PLATFORMS=cpu python benchmarks/loss_memory.py

Only XLA's compiler for TPU (libtpu) is needed; `--cpu` compiles for 8 fake CPU devices
instead. Memory is a chip's, beside inputs and gradients: `temporary` is XLA's
temp_size_in_bytes, HBM only; `live` its peak_memory_in_bytes, less those, which counts
on-chip memory too. What it printed with jax 0.10.2 and libtpu 0.0.42.1 (compile times on 2
busy cores):

    jax 0.10.2, width 768, float32
                       temporary        live  compile
    batch 32768 on v5e:2x4: 8 devices, n = 4096
      dense              862.5 MB    861.9 MB     34 s
      all-gather         600.4 MB    599.9 MB     39 s
      ring, autodiff    1052.0 MB   1050.7 MB     95 s
      ring, remat         45.3 MB    130.0 MB    172 s
      ours                 0.5 MB    121.7 MB     25 s
      ours, chunk=512      0.5 MB     84.0 MB     15 s
    batch 262144 on v5e:2x4: 8 devices, n = 32768
      dense           does not fit: 48.38 GiB needed, 15.75 there
      all-gather      does not fit: 33.59 GiB needed, 15.75 there
      ring, autodiff  does not fit: 60.75 GiB needed, 15.75 there
      ring, remat       5201.7 MB   4848.8 MB     89 s
      ours              2500.7 MB   2500.1 MB      9 s
      ours, chunk=512    404.0 MB    302.5 MB     15 s
    batch 32768 on v5e:16x16: 256 devices, n = 128
      dense              100.9 MB    100.7 MB     43 s
      all-gather         100.9 MB    100.7 MB     45 s
      ring, autodiff       0.5 MB    134.9 MB      5 s
      ring, remat          0.4 MB    100.9 MB      3 s
      ours                 0.0 MB      2.4 MB      3 s
      ours, chunk=128      0.0 MB      2.4 MB      1 s
    batch 262144 on v5e:16x16: 256 devices, n = 1024
      dense             2281.9 MB   2281.7 MB     77 s
      all-gather        2281.9 MB   2281.7 MB     75 s
      ring, autodiff    2540.9 MB   2540.2 MB     47 s
      ring, remat        402.0 MB    401.1 MB    109 s
      ours                 0.0 MB     21.0 MB     26 s
      ours, chunk=512      0.0 MB     21.0 MB     34 s

    batch 1048576 on v5e:16x16: 256 devices, n = 4096
      ring, remat       1739.9 MB   1671.4 MB    176 s
      ours                 0.4 MB    109.1 MB     87 s
      ours, chunk=512      0.0 MB     71.4 MB     11 s

The last table is `--topology v5e:16x16 --batch 1048576 --only "remat|ours"`.

Dense and all-gather hold n x batch numbers a chip, a ring left to autodiff as well; remat
holds n x n, and every hop's texts for the way back: batch x width. Ours holds n x n / 2, or
n x chunk, and two to seven n x width blocks of embeddings and gradients on their way. So it depends
on n = batch / devices alone: 32 times the batch on 32 times the chips (first table, last
table) needs about the same, and n x 8 on the same chips (first, second) 64 times the logits.

Up to 128 MB XLA places on a v5e's chip itself, where `temporary` does not see it.
Whole blocks both ways, for half as many hops of twice the size, need twice as many in
flight: 70.1 and 25.6 MB, 142.6 and 128.0 live, where the first table has 0.5.
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
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # ask nobody which TPU this is

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
