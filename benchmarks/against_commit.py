"""Two versions of this project in one run: a first score, and the rate of bulk jobs.

    git worktree add ../before COMMIT && (cd ../before && make .venv/.installed)
    python benchmarks/against_commit.py ../before/.venv/bin/python .venv/bin/python

Turn by turn, each a process of its own, with the models and images of `job_pipeline.py`: random
weights of the size of siglip_b16_224, and the bundled model.

    start    seconds from the start of `siglip-jax score` of one image (or more, or with other
             options) and two labels to its end
    job      images a second of `siglip-jax embed`, without compiling, as the job reports it

Printed are the medians, and the median and range of the second version's share of the first.

Results: benchmarks/RESULTS.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from decode_speed import photographs

MODEL = """
import sys
from score_photographs import random_params
from siglip_jax import save
from siglip_jax.checkpoints import find
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import profile_for
row = find("siglip_b16_224")
save(sys.argv[1], SiglipModel(row.config), random_params(row.config), profile=profile_for(row))
"""


def command(python: str, *argv: object) -> str:
    done = subprocess.run(
        [python, "-P", "-m", "siglip_jax.cli.main", *map(str, argv)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{python}: {done.stderr[-2000:]}")
    return done.stdout


def start(python: str, model: str, images: list[Path], options: list[str]) -> float:
    """Seconds of a whole process."""
    begin = time.perf_counter()
    command(python, "score", "--model", model, *images, "--labels", "a dog", "a cat", *options)
    return time.perf_counter() - begin


def job(python: str, model: str, images: Path) -> float:
    """Images a second."""
    with tempfile.TemporaryDirectory() as folder:
        out = command(python, "embed", images, "--model", model, "--out", f"{folder}/o", "--json")
    return float(json.loads(out)["run"]["rate"])


def compared(name: str, measure: Callable[[str], float], pythons: list[str], rounds: int) -> None:
    for python in pythons:
        measure(python)  # what is compiled once is compiled now
    found = [[measure(python) for python in pythons] for _ in range(rounds)]
    before, after = zip(*found, strict=True)
    ratios = sorted(b / a for a, b in found)
    print(
        f"{name:16s} {statistics.median(before):8.3f} {statistics.median(after):8.3f}  "
        f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", nargs=2, help="of the version before, and of the one after")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--parts", nargs="+", choices=("start", "job"), default=("start", "job"))
    parser.add_argument("--files", type=int, default=192, help="of the job with B/16")
    parser.add_argument("--bundled-files", type=int, default=4096)
    parser.add_argument("--vocabulary", type=Path, help="c4_en's, for a score with B/16")
    parser.add_argument("--start-images", type=int, default=1, help="that a start scores")
    parser.add_argument(
        "--score-options",
        type=str.split,
        default=[],
        metavar="OPTIONS",
        help='of siglip-jax score, as one word: "--dtype bfloat16"',
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        subprocess.run(
            [args.python[0], "-c", MODEL, folder / "b16"], check=True, cwd=Path(__file__).parent
        )
        if args.vocabulary:
            (folder / "b16" / "tokenizer.model").write_bytes(args.vocabulary.read_bytes())
        images = [(folder / "few", args.files), (folder / "many", args.bundled_files)]
        for place, count in images:
            place.mkdir()
            for number, data in enumerate(photographs(count, 500, 375)):
                (place / f"{number:05d}.jpg").write_bytes(data)
        few, many = (place for place, _ in images)
        first = sorted(few.iterdir())[: args.start_images]
        print(f"{'':16s} {'before':>8s} {'after':>8s}  after/before")
        b16 = str(folder / "b16")
        if "start" in args.parts:
            models = {"bundled": "siglip_emoji"} | ({"B/16": b16} if args.vocabulary else {})
            for name, model in models.items():
                compared(
                    f"start, {name}",
                    lambda p, model=model: start(p, model, first, args.score_options),
                    args.python,
                    args.rounds,
                )
        if "job" in args.parts:
            compared(
                "job, bundled", lambda p: job(p, "siglip_emoji", many), args.python, args.rounds
            )
            compared("job, B/16", lambda p: job(p, b16, few), args.python, max(args.rounds // 2, 3))


if __name__ == "__main__":
    sys.exit(main())
