"""A suite beside a bulk job of the same images; killed and gone on with; and offline.

    python benchmarks/suite.py [--classes N] [--images N] [--rounds N] [--kills N]
    python benchmarks/suite.py --offline FOLDER

The first draws a stand-in for ImageNet: seeded photographs of 500x375 pixels (decode_speed.py)
in tars of CLIP_benchmark's layout, of so many classes with made-up names, for the bundled model.
In every round, in turn:

    embed    `siglip_jax.jobs.embed` of the tars, into a new folder
    suite    `siglip_jax.suites.run_suite` of the task, with the images to be embedded anew; the
             embeddings of its prompts are there already, for `embed` has none
    prompts  the same with the prompts too

Then processes run the suite, and all but the last are killed (SIGKILL) after a random time;
their metrics must be those of a run that was left alone, to the last digit.

With --offline it runs the suite `offline` on a folder such as /usr/share, where Debian's
packages tuxpaint-stamps-default and openclipart-png are installed, and prints the table.

Results: benchmarks/RESULTS.md.
"""

import argparse
import io
import json
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decode_speed import photographs

import siglip_jax
from siglip_jax.cli.output import aligned
from siglip_jax.jobs import embed
from siglip_jax.suites import Suite, Task, run_suite, table
from siglip_jax.suites.comparison import cells

DISTINCT = 200
SHARD = 1000
NAME = "imagenet1k"
MODEL = "siglip_emoji"
WORDS = ["red", "blue", "small", "large", "old", "new", "round", "long", "bright", "dark"]
THINGS = ["dog", "cat", "bus", "tree", "boat", "cup", "chair", "bird", "house", "flower"]


def write_tars(folder: Path, classes: int, images: int) -> None:
    """CLIP_benchmark's layout, `SHARD` images to a tar."""
    distinct = photographs(min(images, DISTINCT), 500, 375)
    test = folder / f"wds_{NAME}" / "test"
    test.mkdir(parents=True)
    shards = -(-images // SHARD)
    for shard in range(shards):
        with tarfile.open(test / f"{shard}.tar", "w") as tar:
            for number in range(shard * SHARD, min((shard + 1) * SHARD, images)):
                label = str(number % classes).encode()
                for ending, data in (("cls", label), ("jpg", distinct[number % len(distinct)])):
                    member = tarfile.TarInfo(f"s{number:07d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    (test / "nshards.txt").write_text(f"{shards}\n")
    names = [f"{WORDS[n % 10]} {THINGS[n // 10 % 10]} {n}" for n in range(classes)]
    (test.parent / "classnames.txt").write_text("\n".join(names) + "\n")
    templates = ["a photo of a {c}.", "{c}"]
    (test.parent / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def race(folder: Path, suite: Suite, images: int, rounds: int) -> None:
    """Prints the rates, and the suite's as a share of the job's."""
    model = siglip_jax.load(MODEL)
    tars = str(folder / f"wds_{NAME}" / "test")
    out = folder / "suite"

    def measure() -> None:
        assert run_suite(suite, str(folder), out, model=model).code == 0

    def forget(*names: str) -> None:
        (out / "metrics" / f"{NAME}.json").unlink(missing_ok=True)
        for name in names:
            shutil.rmtree(out / "embeddings" / name, ignore_errors=True)

    embed([tars], folder / "warm", model=model)
    measure()  # compiles
    rates: dict[str, list[float]] = {"embed": [], "suite": [], "with prompts": []}
    for number in range(rounds):
        rates["embed"].append(
            images / seconds(lambda n=number: embed([tars], folder / f"job{n}", model=model))
        )
        forget(NAME)
        rates["suite"].append(images / seconds(measure))
        forget(NAME, f"{NAME}-texts")
        rates["with prompts"].append(images / seconds(measure))
    rows = [("", "images/s", "of embed")]
    for name, found in rates.items():
        shares = sorted(a / b for a, b in zip(found, rates["embed"], strict=True))
        share = f"{statistics.median(shares):.2f} ({shares[0]:.2f} to {shares[-1]:.2f})"
        rows.append((name, f"{statistics.median(found):,.1f}", share))
    print(aligned(rows, "lrr"))


def kill(folder: Path, kills: int) -> None:
    """Prints whether a suite that is killed gives what one gives that is left alone."""

    def started(out: str) -> "subprocess.Popen[str]":
        command = [sys.executable, __file__, "--one", str(folder), str(folder / out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finished(out: str) -> tuple[Any, float]:
        start = time.perf_counter()
        said, error = (process := started(out)).communicate()
        if process.returncode:
            raise SystemExit(error)
        return json.loads(said), time.perf_counter() - start

    whole, took = finished("whole")
    rng, deaths = random.Random(0), 0
    for _ in range(kills):
        process = started("killed")
        time.sleep(rng.uniform(0.08, 0.3) * took)
        deaths += process.poll() is None
        process.kill()
        process.communicate()
    again, last = finished("killed")
    print(f"left alone: {took:.0f} s; killed {deaths} times, the last run: {last:.0f} s")
    print("metrics are the same to the last digit:", whole == again)
    if whole != again:
        raise SystemExit(f"{whole} is not {again}")


def offline(data: str) -> None:
    """Prints the table of the suite `offline`."""
    with tempfile.TemporaryDirectory() as out:
        result = run_suite("offline", data, out, model=siglip_jax.load(MODEL))
        rows = [(*row[:3], *_counts(result, name)) for row, name in _named(result)]
        print(aligned([("TASK", "METRIC", "OURS", "IMAGES", "TEXTS OR CLASSES"), *rows], "llrrr"))
        for task, each in result.results.items():
            for language, metrics in each.languages.items():
                print(f"{task} {language}: {100 * metrics['mean_recall@1']:.2f}")
        for task, why in result.missing.items():
            print(f"{task}: {why}")


def _named(result: Any) -> list[tuple[tuple[str, ...], str]]:
    rows = table(result)
    return [(cell, row.task) for cell, row in zip(cells(rows)[1:], rows, strict=True)]


def _counts(result: Any, name: str) -> tuple[str, str]:
    if name not in result.results:
        return "", ""
    found = result.results[name]
    texts = found.about.get("classes") or sum(found.about["texts"].values())
    return f"{found.images:,}", f"{texts:,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--offline", metavar="FOLDER")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a process that is killed
    args = parser.parse_args()
    task = Task(name=NAME, title="stand-in for ImageNet")
    suite = Suite(name="stand-in", about="", tasks=(task,))
    if args.one:
        data, out = args.one
        result = run_suite(suite, data, out, model=siglip_jax.load(MODEL))
        print(json.dumps(result.results[NAME].describe()))
        return
    if args.offline:
        offline(args.offline)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_tars(Path(folder), args.classes, args.images)
        race(Path(folder), suite, args.images, args.rounds)
        if args.kills:
            kill(Path(folder), args.kills)


if __name__ == "__main__":
    main()
