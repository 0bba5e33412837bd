"""How fast we are beside other systems: the same weights, the same inputs, turn by turn.

    python benchmarks/compare.py --vocabulary spiece.model --big-vision CHECKOUT \\
        --python torch=/path/to/python --python big_vision=/path/to/python

Writes a seeded random B/16-224, converts it with our converters, exports it to ONNX, and
starts every system in a process of its own (`compare_systems.py`), all held to the same
cores; for `--precisions` bfloat16 and int8 those that have it, and ours in float32. Then, round
after round, one system after another is asked for one batch while the others sleep, so that
whatever else the machine does hits all alike; a ratio is of two times from the same round, and
what is printed is its median and its quartiles. Before it is timed, each system has run that
batch once. The last columns are the CPU seconds of a batch, of all threads, and how far
embeddings are from ours in float32: the largest difference of a number, and the least cosine.

Results: benchmarks/RESULTS.md.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from compare_systems import PRECISIONS, SYSTEMS
from score_photographs import random_params

NEEDS = {"siglip_jax": "jax", "big_vision": "big_vision"}  # all others: torch
# Ours in float32, in the tables of other precisions.
FLOAT32 = "siglip_jax, float32"


def prepare(
    folder: Path, vocabulary: Path, pythons: dict[str, str], precisions: Sequence[str] = ()
) -> None:
    """Writes the same weights for every system; what is there already is kept."""
    from siglip_jax.checkpoints import find
    from siglip_jax.models import SiglipModel
    from siglip_jax.preprocessing import custom_profile
    from siglip_jax.pretrained import save

    ours = folder / "siglip_jax"
    if not ours.exists():
        if vocabulary is None:
            raise SystemExit("--vocabulary is needed to write the models: c4_en's spiece.model")
        config = find("siglip_b16_224").config
        profile = custom_profile(config, pad=1)
        params = random_params(config)
        save(ours, SiglipModel(config), params, profile=profile, vocabulary=vocabulary)
    convert = [sys.executable, "-m", "siglip_jax.cli.main", "convert", ours]
    wanted = {"npz": "big_vision.npz", "transformers": "transformers", "open_clip": "open_clip"}
    for form, name in wanted.items():
        if not (folder / name).exists():
            command = [*convert, folder / name, "--to", form]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    if not (folder / "onnx" / "texts.onnx").exists():
        worker = Path(__file__).with_name("compare_systems.py")
        command = [pythons["torch"], worker, "export", folder, "1"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    if "int8" in precisions and not (folder / "onnx" / "texts-int8.xml").exists():
        worker = Path(__file__).with_name("compare_quantized.py")
        command = [pythons["torch"], worker, folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Worker:
    """One system in a process of its own."""

    def __init__(
        self, name: str, folder: Path, threads: int, pythons: dict[str, str], precision: str
    ) -> None:
        count = str(threads)
        # All libraries that read them; XLA and OpenVINO count the cores they are held to.
        environment = os.environ | {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        # torch's libraries must not be met by a PYTHONPATH that is for big_vision.
        if name == "big_vision":
            environment["PYTHONPATH"] = pythons["checkout"]
        python = pythons[NEEDS.get(name, "torch")]
        self._log = (folder / f"{name}-{precision}.log").open("w")
        script = Path(__file__).with_name("compare_systems.py")
        self._process = subprocess.Popen(
            [python, script, name, folder, count, precision],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            text=True,
        )

    def ask(self, **request: object) -> dict[str, float]:
        """Seconds of one batch, and CPU seconds of all threads."""
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker died; see {self._log.name}")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._log.close()


@dataclasses.dataclass
class Line:
    """Times of one system, in the order of the rounds."""

    name: str
    seconds: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)

    def text(self, ours: list[float], batch: int, z: np.ndarray, exact: np.ndarray) -> str:
        # How many times as fast as this system we are, round by round.
        ratios = [theirs / mine for theirs, mine in zip(self.seconds, ours, strict=True)]
        low, middle, high = quartiles(ratios)
        rate = batch / statistics.median(self.seconds)
        return (
            f"    {self.name:24} {rate:7.2f}/s  {middle:5.2f} ({low:.2f} to {high:.2f})"
            f"  CPU {statistics.median(self.cpu):.3f} s  {np.abs(z - exact).max():.0e}"
            f" {(z * exact).sum(axis=1).min():.5f}"
        )


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """
    >>> quartiles([1.0, 2.0, 3.0])
    (1.5, 2.0, 2.5)
    """
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def compare(
    tower: str, batch: int, workers: dict[str, Worker], folder: Path, rounds: int
) -> list[str]:
    """The lines of one table."""
    lines = {name: Line(name) for name in workers}
    kept = {name: folder / f"{i}.npy" for i, name in enumerate(workers)}
    for name, worker in workers.items():
        worker.ask(tower=tower, batch=batch, save=str(kept[name]))
    z = {name: np.load(file) for name, file in kept.items()}
    for turn in range(rounds):
        # Nobody always follows the same neighbour, whose data would be in the caches.
        order = list(workers)[:: 1 if turn % 2 else -1]
        for name in order:
            answer = workers[name].ask(tower=tower, batch=batch)
            lines[name].seconds.append(answer["seconds"])
            lines[name].cpu.append(answer["cpu"])
    ours = next(iter(workers))
    exact = z[FLOAT32 if FLOAT32 in z else ours]
    return [line.text(lines[ours].seconds, batch, z[name], exact) for name, line in lines.items()]


def processor() -> str:
    """Its name, and which of the instructions for coarse numbers it has."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    pairs = dict(line.split(":", 1) for line in lines if ":" in line)
    pairs = {key.strip(): value.strip() for key, value in pairs.items()}
    flags = [f for f in pairs.get("flags", "").split() if "vnni" in f or "bf16" in f or "amx" in f]
    return f"{pairs.get('model name', platform.processor())} {' '.join(flags)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=Path, help="c4_en's sentencepiece file")
    parser.add_argument("--big-vision", metavar="CHECKOUT", help="left out without it")
    parser.add_argument("--python", action="append", default=[], metavar="torch|big_vision|jax=EXE")
    parser.add_argument("--keep", type=Path, help="folder for the models, used again if there")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--towers", nargs="+", default=["images", "texts"])
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=PRECISIONS)
    args = parser.parse_args()
    pythons = dict.fromkeys(("jax", "big_vision", "torch"), sys.executable)
    pythons |= dict(entry.split("=", 1) for entry in args.python)
    pythons["checkout"] = args.big_vision or ""
    names = [n for n in args.systems if n != "big_vision" or args.big_vision]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        prepare(folder, args.vocabulary, pythons, args.precisions)
        print(f"{args.threads} threads of {processor()}, {args.rounds} rounds")
        print(f"{names[0]} is so many times as fast")
        for precision in args.precisions:
            able = [name for name in names if precision in SYSTEMS[name].precisions]
            workers = {n: Worker(n, folder, args.threads, pythons, precision) for n in able}
            if precision != "float32":
                plain = Worker("siglip_jax", folder, args.threads, pythons, "float32")
                workers[FLOAT32] = plain
            for tower in args.towers:
                for batch in args.batches:
                    print(f"{tower}, batches of {batch}, {precision}")
                    for line in compare(tower, batch, workers, folder, args.rounds):
                        print(line, flush=True)
            for worker in workers.values():
                worker.close()


if __name__ == "__main__":
    main()
