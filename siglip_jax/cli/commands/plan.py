"""Plan a workload for a TPU slice, compiled ahead of time without a TPU, or for these devices.

MODEL is any name of a released checkpoint, or a local file or folder; no weights are read.
The program that score, embed or train would run is compiled for the slice, and the table says
what it needs on each chip:

  siglip-jax plan siglip2_so400m14_384 --on v5e:4x4
  siglip-jax plan siglip_b16_224 --on v6e:2x4 --task images --batch-size 4096
  siglip-jax plan --train recipe.toml --on v5p:4x4x4
  siglip-jax plan siglip2_b16_256 --on v5e:4x4 --items 5e9

Slices are v5e:2x4, v6e:4x4, v4:2x2x1, v5p:2x2x2 and so on; --on local is this machine.
FLOPs and bytes are XLA's, except that XLA counts the body of a loop (--scan) once: they are
multiplied by how often it runs. Bytes accessed include what never leaves the chip, and so are
an upper bound, as is the time they take. --save writes StableHLO that score and embed
start from with --program FILE, without tracing the model. Of a recipe the days are predicted,
beside those of the paper's run if it is one. --items plans a bulk job of so many images: hours,
cores to decode them, network, bytes, and which of these is the limit:

  siglip-jax plan siglip_b16_224 --on local --dtype float32 --save b16.zip
  siglip-jax embed photos/ --model siglip_b16_224 --program b16.zip --out index/
"""

import argparse
import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any

from siglip_jax.cli.options.checkpoint import add_tower_arguments, architecture, architecture_of
from siglip_jax.cli.options.former import add_former
from siglip_jax.cli.options.model import positive
from siglip_jax.cli.output import add_json_argument, print_json
from siglip_jax.cli.plan_items import add_items_arguments, check_items, gpus, plan_items
from siglip_jax.cli.plan_output import print_duration, print_programs
from siglip_jax.config import DTYPES, WEIGHTS, Execution, Siglip, Tower

if TYPE_CHECKING:
    from siglip_jax.plan import Duration, Slice, Workload

NAME = "plan"
HELP = "plan what a model needs on a TPU slice, without a TPU"
USAGE = (
    "%(prog)s MODEL --on SLICE [options]\n       %(prog)s --train RECIPE --on SLICE [options]"
    "\n       %(prog)s MODEL --on SLICE --items N [options]"
)
TASKS = {"score": ("images", "texts", "logits"), "images": ("images",), "texts": ("texts",)}
_NEEDS: dict[str, tuple[Tower, ...]] = {
    "score": ("image", "text"),
    "images": ("image",),
    "texts": ("text",),
}
EACH = 128  # items a chip, by default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="name, file or folder of a model")
    add_tower_arguments(parser)
    parser.add_argument(
        "--on",
        required=True,
        metavar="SLICE",
        help="TPU slice, such as v5e:4x4, or local; with --items a GPU, such as H100:8, too",
    )
    parser.add_argument(
        "--task", choices=TASKS, help="what to run (default: score; of one tower, what it does)"
    )
    parser.add_argument(
        "--train", metavar="RECIPE", help="plan a training step of this recipe instead"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="setting in place of the recipe's, as for train",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help=f"items a step over all chips (default: {EACH} a chip)",
    )
    parser.add_argument(
        "--text-batch-size",
        type=positive,
        metavar="N",
        help="texts a step (default: as many as images)",
    )
    parser.add_argument(
        "--label-count",
        type=positive,
        default=1024,
        metavar="N",
        help="labels that each image is scored with (default: 1024)",
    )
    for former in ("batch", "text-batch", "labels"):
        now = "label-count" if former == "labels" else f"{former}-size"
        dest = now.replace("-", "_")
        add_former(parser, f"--{former}", f"--{now}", dest=dest, type=positive)
    parser.add_argument(
        "--res", type=positive, metavar="PX", help="side of the images (default: the model's)"
    )
    parser.add_argument(
        "--patches", type=positive, metavar="N", help="patches an image, for NaFlex"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="bfloat16",
        help="dtype of the image tower (default: bfloat16)",
    )
    parser.add_argument(
        "--text-dtype",
        choices=DTYPES,
        default="float32",
        help="dtype of the text tower (default: float32)",
    )
    parser.add_argument(
        "--weights", choices=WEIGHTS, help="dtype that weights are kept in (default: as stored)"
    )
    parser.add_argument("--fsdp", action="store_true", help="shard the weights over the chips")
    parser.add_argument(
        "--scan", action="store_true", help="run the layers as a loop, which compiles faster"
    )
    parser.add_argument(
        "--no-search", action="store_true", help="do not look for the largest batch that fits"
    )
    parser.add_argument("--save", metavar="FILE", help="write the programs as StableHLO")
    add_items_arguments(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    if bool(args.model) == bool(args.train):
        raise ValueError("give either a MODEL or --train RECIPE")
    if args.train and args.save:
        raise ValueError("--save is for scoring; a training starts from its recipe")
    check_items(args)
    if args.items and gpus(args.on):
        return plan_items(args, _items_config(args), None)
    if args.on != "local":
        # Nothing runs: a device of this machine need not be taken.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        # No executable for it can be loaded here; what the plan needs of it is kept instead.
        os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

    from siglip_jax.plan import find_slice

    recipe = _recipe(args) if args.train else None
    target = find_slice(args.on)
    if args.items:
        return _bulk(args, target)
    workloads = _training(args, target, recipe) if recipe else _scoring(args, target)
    plans, notes = [], []
    for workload, batch in workloads:
        plan, note = _planned(workload, batch, target, search=not args.no_search)
        plans.append(plan)
        notes += [note] if note else []
    if args.save:
        _save(args, target, workloads)
    report = {
        "model": args.model or args.train,
        "on": args.on,
        "chips": len(target.devices),
        "chip": dataclasses.asdict(target.chip) if target.chip else None,
        "programs": plans,
        "warnings": notes,
    }
    duration = _duration(recipe, plans[0]) if recipe else None
    if duration:
        report["run"] = duration.to_dict()
    if args.json:
        print_json(report)
    else:
        print_programs(args.model or args.train, args.on, target, plans)
        if duration and target.chip:
            print_duration(duration, len(target.devices), target.chip.name)
    for note in notes:
        print(f"siglip-jax: warning: {note}", file=sys.stderr)
    return 2 if any("error" in plan for plan in plans) else 0


def _items_config(args: argparse.Namespace) -> Siglip:
    config = _config(args, args.model)
    config.needs("image", what="embeddings of images", name=args.model)
    _check_patches(args, config)
    return config


def _bulk(args: argparse.Namespace, target: "Slice") -> int:
    """A bulk job on a slice: the image tower is compiled for it."""
    config, args.task = _items_config(args), "images"
    ((workload, batch),) = _scoring(args, target)
    plan, note = _planned(workload, batch, target, search=False)
    if note and "error" not in plan:
        print(f"siglip-jax: warning: {note}", file=sys.stderr)
    chip = target.chip.name if target.chip else None
    return plan_items(args, config, {"chip": chip, "chips": len(target.devices), "plan": plan})


def _duration(recipe: Any, plan: dict[str, Any]) -> "Duration | None":
    """The days of a run; None where the step does not fit, or of a chip without numbers."""
    from siglip_jax.plan import duration_of

    if plan.get("compute_seconds") is None:
        return None
    sides = {name: plan[name] for name in ("batch", "compute_seconds", "memory_seconds")}
    return duration_of(recipe, **sides)


def _config(args: argparse.Namespace, name: str) -> Siglip:
    config = architecture_of(name, args.res, architecture(args), args.tower, args.base)
    return config.at_resolution(args.res) if args.res else config


def _scoring(args: argparse.Namespace, target: "Slice") -> "list[tuple[Workload, int]]":
    from siglip_jax.plan import scoring_workload

    program = _program(args, target)
    config, chips = program.model.config, len(target.devices)
    tasks = TASKS["score"]
    if args.task:
        tasks = TASKS[args.task]
        config.needs(
            *_NEEDS[args.task],
            what="scores" if args.task == "score" else args.task,
            name=args.model,
        )
    elif config.tower:
        tasks = TASKS[f"{config.tower}s"]
    images = args.batch_size or EACH * chips
    batches = {"images": images, "texts": args.text_batch_size or images, "logits": images}
    return [
        (
            scoring_workload(task, program, labels=args.label_count, patches=args.patches),
            batches[task],
        )
        for task in tasks
    ]


def _program(args: argparse.Namespace, target: "Slice") -> Any:
    from siglip_jax.plan import scoring_program

    config = _config(args, args.model)
    _check_patches(args, config)
    execution = Execution(
        dtype=args.dtype,
        text_dtype=args.text_dtype,
        weights=args.weights,
        scan_image=args.scan,
        scan_text=args.scan,
    )
    return scoring_program(config, target.devices, execution, fsdp=args.fsdp)


def _check_patches(args: argparse.Namespace, config: Siglip) -> None:
    if args.patches and not config.naflex:
        raise ValueError(f"--patches is for NaFlex models; {args.model} takes squares (--res)")


def _recipe(args: argparse.Namespace) -> Any:
    from siglip_jax.plan.training import read

    overrides = list(args.set)
    overrides += ["devices.weights=fsdp"] if args.fsdp else []
    overrides += ["execution.scan_image=true", "execution.scan_text=true"] if args.scan else []
    return read(args.train, overrides)


def _training(
    args: argparse.Namespace, target: "Slice", recipe: Any
) -> "list[tuple[Workload, int]]":
    from siglip_jax.plan import training_workload

    config = _config(args, recipe.init.model) if recipe.init.model else None
    if config is not None:
        config.needs("image", "text", what="steps of training", name=recipe.init.model)
    return [(training_workload(recipe, target.devices, config), args.batch_size or recipe.batch)]


def _planned(
    workload: "Workload", batch: int, target: "Slice", *, search: bool
) -> tuple[dict[str, Any], str | None]:
    """The plan as plain types, or why there is none; and a warning."""
    from siglip_jax.plan import TooLarge, largest_batch, make_plan

    plan, error = None, None
    try:
        plan = make_plan(workload, batch, target)
    except TooLarge as too_large:
        error = str(too_large)
    result: dict[str, Any] = {"task": workload.task, "batch": batch, "chips": workload.devices}
    result |= plan.to_dict() if plan else {"error": error}
    searched = search and workload.task in ("images", "train") and target.memory is not None
    if searched:
        result["largest"] = largest_batch(workload, target, plan)
    note = error
    if plan and plan.capacity and not workload.fsdp and workload.weights > plan.capacity / 2:
        note = (
            f"{workload.task}: one copy of the weights takes "
            f"{workload.weights / plan.capacity:.0%} of each chip; --fsdp splits them"
        )
    return result, note


def _save(args: argparse.Namespace, target: "Slice", workloads: Any) -> None:
    from siglip_jax.programs import save_program

    platform = target.devices[0].platform
    save_program(
        args.save,
        _program(args, target),
        {workload.task: batch for workload, batch in workloads},
        platform="cuda" if platform == "gpu" else platform,
        labels=args.label_count,
        patches=args.patches,
    )
