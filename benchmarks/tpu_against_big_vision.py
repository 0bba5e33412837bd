"""Our image tower and big_vision's, compiled for the same TPUs the same way.

    pip install "jax[tpu]"
    JAX_PLATFORMS=cpu python benchmarks/tpu_against_big_vision.py --big-vision CHECKOUT

Both take uint8 images split over the chips and float32 weights that every chip has whole, run
in bfloat16 (`dtype_mm`), and give embeddings to every chip. `seconds` of compiling are CPU
seconds, of all threads, which another process on the machine changes less than a clock's.

Results: benchmarks/RESULTS.md.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from siglip_jax.checkpoints import find
from siglip_jax.config import Execution
from siglip_jax.models import value_range
from siglip_jax.plan import Workload, find_slice, make_plan, scoring_program, scoring_workload
from siglip_jax.plan.flops import image_flops
from siglip_jax.programs import Program

MODELS = {"siglip_b16_224": ("B/16", 128), "siglip_so400m14_384": ("So400m/14", 32)}
SCANNED = {"scan_image": True, "scan_text": True}
OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, scanned": SCANNED,
    "scanned, bf16": {**SCANNED, "text_dtype": "bfloat16", "weights": "bfloat16"},
}
SYSTEMS = ("big_vision", *OURS)


def big_vision_job(name: str, ours: Program) -> Workload:
    """big_vision's two towers, the image tower alone asked for, on the mesh of `ours`."""
    from big_vision.models.proj.image_text import two_towers

    config, (variant, _) = ours.model.config, MODELS[name]
    model = two_towers.Model(
        image={"variant": variant, "pool_type": "map", "dtype_mm": "bfloat16"},
        text={"variant": variant.split("/")[0], "vocab_size": config.text.vocab_size},
        out_dim=(None, config.embed_dim),
        bias_init=-10.0,
    )
    image = jax.ShapeDtypeStruct((1, config.vision.res, config.vision.res, 3), jnp.float32)
    ids = jax.ShapeDtypeStruct((1, config.text.length), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), image, ids)["params"]
    # As released: float32, where init gives position embeddings the dtype of activations.
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), params)
    whole = ours.label_rows.update(spec=jax.sharding.PartitionSpec())

    def embed(params: Any, images: Any) -> Any:
        return model.apply({"params": params}, value_range(images))[0]

    function = jax.jit(embed, in_shardings=(whole, ours.batch_sharding), out_shardings=whole)

    def lower(batch: int) -> jax.stages.Lowered:
        images = jax.ShapeDtypeStruct((batch, *image.shape[1:]), jnp.uint8)
        return function.lower(params, images)

    return Workload(
        task="images",
        devices=ours.mesh.size,
        lower=lower,
        flops=lambda batch: batch // ours.mesh.size * image_flops(config),
        weights=sum(leaf.size * 4 for leaf in jax.tree.leaves(params["img"])),
        precision="default",
        fsdp=False,
    )


def measured(slice_: str, name: str, system: str) -> dict[str, Any]:
    where = find_slice(slice_)
    execution = Execution(dtype="bfloat16", **OURS.get(system, {}))
    program = scoring_program(find(name).config, where.devices, execution)
    if system == "big_vision":
        job = big_vision_job(name, program)
    else:
        job = scoring_workload("images", program)
    return make_plan(job, MODELS[name][1] * len(where.devices), where).to_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--big-vision", metavar="CHECKOUT", help="unless it is on PYTHONPATH")
    parser.add_argument("--on", nargs="+", default=["v5e:2x2", "v6e:2x2"])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--rows", type=Path, help="keep finished rows here, and go on from them")
    args = parser.parse_args()
    if args.big_vision:
        sys.path.insert(0, args.big_vision)
    done = {}
    if args.rows and args.rows.exists():
        done = {row["key"]: row for row in map(json.loads, args.rows.read_text().splitlines())}
    print(f"jax {jax.__version__}; per chip, GFLOP and MB an image")
    print(f"{'':14}  GFLOP  / analytic   MB accessed  temporary MB  seconds  gathered")
    for name in args.models:
        for slice_ in args.on:
            print(f"{name} on {slice_}, {MODELS[name][1]} images a chip")
            for system in args.systems:
                key = f"{name} {slice_} {system}"
                if key not in done:
                    done[key] = measured(slice_, name, system) | {"key": key}
                    if args.rows:
                        with args.rows.open("a") as file:
                            file.write(json.dumps(done[key]) + "\n")
                    jax.clear_caches()
                row, each = done[key], MODELS[name][1]
                gathered = ", ".join(f"{c['count']} {c['array']}" for c in row["collectives"])
                print(
                    f"  {system:14}{row['flops'] / each / 1e9:6.1f}"
                    f"{row['flops'] / row['analytic']:12.4f}"
                    f"{row['nbytes'] / each / 1e6:14.1f}{row['temporary'] / 1e6:14.1f}"
                    f"{row['compile_cpu_seconds']:9.1f}  {gathered}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
