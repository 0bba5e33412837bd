"""Measure how fast a model runs on the devices of this machine.

Weights are random, of the model's shapes, because speed does not depend on what they are:
nothing is downloaded. Both towers are compiled and timed, images as uint8 pixels that lie
on the devices already, so that decoding is not in it.

  siglip-jax bench --model siglip2_so400m14_384 --batch-size 1 64

LATENCY is of one batch, its median and what 95 of 100 do not exceed; PEAK is the share of
the matrix throughput that square matmuls reach on the same devices in the same run, in the
dtype of the tower; TEMPORARY is what a batch needs on one device beside the weights.
"""

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from siglip_jax.activity import activity
from siglip_jax.allocator import keep_freed_memory
from siglip_jax.cli.options.checkpoint import (
    add_tower_arguments,
    architecture,
    architecture_of,
)
from siglip_jax.cli.options.model import available_mesh, positive
from siglip_jax.cli.output import add_json_argument, aligned, print_json
from siglip_jax.config import ATTENTIONS, DTYPES, Execution, Siglip, Tower

if TYPE_CHECKING:
    from siglip_jax.bench import TowerSpeed
    from siglip_jax.bench.tower import TowerTask

NAME = "bench"
HELP = "measure how fast a model runs here"
USAGE = "%(prog)s [--model MODEL] [--batch-size N...] [options]"
_HEAD = ("TOWER", "BATCH", "PER SECOND", "LATENCY", "95%", "PEAK", "COMPILE", "TEMPORARY")
_TOWERS: dict["TowerTask", Tower] = {"images": "image", "texts": "text"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="siglip_b16_224",
        metavar="MODEL",
        help="name, file or folder of a model (default: siglip_b16_224)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        nargs="+",
        default=[1, 32],
        metavar="N",
        help="batch sizes to measure (default: 1 and 32)",
    )
    add_tower_arguments(parser)
    parser.add_argument(
        "--res", type=positive, metavar="PX", help="side of the images (default: the model's)"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="dtype of both towers (default: float32 on a CPU, else bfloat16)",
    )
    parser.add_argument(
        "--attention",
        choices=ATTENTIONS,
        default="auto",
        help="implementation of attention (default: auto, chosen for the device)",
    )
    parser.add_argument(
        "--scan", action="store_true", help="run the layers as a loop, which compiles faster"
    )
    parser.add_argument("--fsdp", action="store_true", help="shard the weights over the devices")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=2.0,
        metavar="S",
        help="seconds that each tower is run for (default: 2)",
    )
    add_json_argument(parser, "everything measured")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text!r}")
    return value


def run(args: argparse.Namespace) -> int:
    config = architecture_of(args.model, args.res, architecture(args), args.tower, args.base)
    config = config.at_resolution(args.res) if args.res else config
    towers: list[TowerTask] = [task for task, tower in _TOWERS.items() if tower in config.towers]
    keep_freed_memory()
    mesh = available_mesh()

    import jax

    from siglip_jax.bench import matrix_peak, measure_tower, random_weights
    from siglip_jax.models import SiglipModel
    from siglip_jax.programs import FSDP, REPLICATED, Program
    from siglip_jax.programs.memory import device_memory

    devices = list(mesh.devices.flat)
    dtype = args.dtype or ("float32" if devices[0].platform == "cpu" else "bfloat16")
    execution = Execution(
        dtype=dtype,
        text_dtype=dtype,
        attention=args.attention,
        scan_image=args.scan,
        scan_text=args.scan,
    )
    _check_batches(args.batch_size, len(devices))
    program = Program(SiglipModel(config, execution), mesh, FSDP if args.fsdp else REPLICATED)
    with activity("making random weights"):
        params = random_weights(program)

    def measured_peak() -> float:
        with activity("measuring the peak of matmuls"):
            return matrix_peak(mesh, dtype, execution.precision)

    speeds, peaks = [], [measured_peak()]
    for tower in towers:
        for batch in args.batch_size:
            with activity(f"measuring {tower}, batches of {batch:,}"):
                speed = measure_tower(program, params, tower, batch, seconds=args.seconds)
            speeds.append(speed)
        # Again after each tower: what a machine does changes while it is measured.
        peaks.append(measured_peak())
    peak, memory = max(peaks), device_memory(devices)
    facts: dict[str, Any] = {
        "model": args.model,
        "devices": len(devices),
        "device": devices[0].device_kind,
        "jax": jax.__version__,
        "execution": dataclasses.asdict(execution) | {"fsdp": args.fsdp},
        "attention": _attention(config, execution, devices[0]),
        "weight_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
        "matrix_peak": peak,
        "memory_peak": memory.peak,
        "memory": memory.limit,
        "towers": [_plain(speed, peak) for speed in speeds],
    }
    if args.json:
        print_json(facts)
    else:
        _print(facts, dtype, speeds)
    return 0


def _attention(config: Siglip, execution: Execution, device: Any) -> str:
    """The implementation that runs, where "auto" was asked for too."""
    import jax

    from siglip_jax.models.attention import chosen_attention, cudnn_takes

    if execution.attention != "auto":
        return execution.attention
    size = (config.vision or config.text_tower).size
    shape = (1, 2, size.num_heads, size.width // size.num_heads)
    array = jax.ShapeDtypeStruct(shape, execution.dtype)
    return chosen_attention(device.platform, fused=cudnn_takes(device, array, array))


def _check_batches(sizes: list[int], devices: int) -> None:
    for size in sizes:
        if size % devices:
            near = -(-size // devices) * devices
            raise ValueError(
                f"--batch-size {size} cannot be split over {devices} devices; try {near}"
            )


def _plain(speed: "TowerSpeed", peak: float) -> dict[str, Any]:
    return dataclasses.asdict(speed) | {
        "p50": speed.p50,
        "p95": speed.p95,
        "share_of_peak": speed.flops_per_second / peak,
    }


def _print(facts: dict[str, Any], dtype: str, speeds: "list[TowerSpeed]") -> None:
    peak, many = facts["matrix_peak"], facts["devices"]
    print(f"{facts['model']} in {dtype} on {many} x {facts['device']}, jax {facts['jax']}")
    asked, runs = facts["execution"]["attention"], facts["attention"]
    print(f"attention: {runs}" + (", chosen for this device" if asked == "auto" else ""))
    print(f"matmuls here: {_units(peak)}FLOP/s")
    rows = [
        (
            speed.tower,
            str(speed.batch),
            f"{speed.items_per_second:,.1f}",
            _duration(speed.p50),
            _duration(speed.p95),
            f"{speed.flops_per_second / peak:.0%}",
            _duration(speed.compile_seconds),
            "" if speed.temporary is None else f"{_units(speed.temporary)}B",
        )
        for speed in speeds
    ]
    print(aligned([_HEAD, *rows], "lrrrrrrr"))
    used, total = facts["memory_peak"], facts["memory"]
    if used is not None:
        where = f"of {_units(total)}B on the fullest device" if total else "of this process"
        print(f"memory: {_units(used)}B {where}; weights are {_units(facts['weight_bytes'])}B")


def _units(value: float) -> str:
    """
    >>> _units(1.98e14), _units(812_623_880), _units(12)
    ('198 T', '813 M', '12 ')
    """
    for power, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:.3g} {letter}"
    return f"{value:.3g} "


def _duration(seconds: float) -> str:
    """
    >>> _duration(0.00123), _duration(2.5)
    ('1.23 ms', '2.5 s')
    """
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
