"""From the start of a process to its first score of one picture, beside other systems.

    python benchmarks/start.py --vocabulary spiece.model --python torch=/path/to/python

The same random B/16-224 as `compare.py`, every time a fresh process (`start_once.py`) that
imports, loads 0.8 GB, prepares a photograph and two labels, and prints two probabilities.
Files are read once before, so that they are in the page cache, and each system has started
once before it is timed: our compiled programs and OpenVINO's are in their caches then, as
they are for anyone's second run. Rounds are interleaved; ratios are of the same round. CPU
seconds, of all threads, are what is left of a measurement on a machine that others use.

Results: benchmarks/RESULTS.md.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import prepare, quartiles
from PIL import Image
from skimage import data
from start_once import SYSTEMS


def start(
    name: str, python: str, folder: Path, picture: Path, threads: int
) -> tuple[float, float, str]:
    """Seconds until the scores are printed, CPU seconds of the process, and the line itself."""
    environment = os.environ | {
        "SIGLIP_JAX_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
    }
    script = Path(__file__).with_name("start_once.py")
    before = os.times()
    begin = time.perf_counter()
    with subprocess.Popen(
        [python, script, name, folder, picture, str(threads)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        for line in process.stdout:
            if line.startswith("scores "):
                took = time.perf_counter() - begin
                process.wait()
                after = os.times()
                spent = after.children_user - before.children_user
                spent += after.children_system - before.children_system
                return took, spent, line.strip()
        raise RuntimeError(f"{name} failed: {process.stderr.read()[-2000:]}")


def warm(folder: Path) -> None:
    """Reads a file, or all files of a folder, so that they are in the page cache."""
    for file in [folder, *folder.rglob("*")]:
        if file.is_file():
            with file.open("rb") as opened:
                while opened.read(16 << 20):
                    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=Path, help="c4_en's sentencepiece file")
    parser.add_argument("--python", action="append", default=[], metavar="torch|jax=EXE")
    parser.add_argument("--keep", type=Path, help="folder for the models, used again if there")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    args = parser.parse_args()
    pythons = dict.fromkeys(("jax", "big_vision", "torch"), sys.executable)
    pythons |= dict(entry.split("=", 1) for entry in args.python)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        prepare(folder, args.vocabulary, pythons)
        picture = folder / "chelsea.jpg"
        Image.fromarray(data.chelsea()).save(picture)
        seconds: dict[str, list[float]] = {name: [] for name in args.systems}
        cpu: dict[str, list[float]] = {name: [] for name in args.systems}
        for turn in range(args.rounds + 1):
            for name in args.systems:
                python = pythons["jax" if name == "siglip_jax" else "torch"]
                own = folder / name
                warm(own if own.is_dir() else folder / "onnx")
                took, spent, line = start(name, python, folder, picture, args.threads)
                if turn:
                    seconds[name].append(took)
                    cpu[name].append(spent)
                else:
                    print(f"{name:14} {line}", flush=True)
    ours = seconds[args.systems[0]]
    print(f"{args.threads} threads, {args.rounds} rounds; share of each that we take")
    for name, theirs in seconds.items():
        low, middle, high = quartiles([a / b for a, b in zip(ours, theirs, strict=True)])
        print(
            f"{name:14} {statistics.median(theirs):6.2f} s  {middle:.2f} ({low:.2f} to {high:.2f})"
            f"  CPU {statistics.median(cpu[name]):.2f} s"
        )


if __name__ == "__main__":
    main()
