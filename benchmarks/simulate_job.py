"""The simulation of a bulk job beside real ones: one process, two, and two of which one dies.

    python benchmarks/simulate_job.py [--images N] [--rounds N]

Tars of seeded JPEGs (job_resume.py: mostly small ones, a few very large, some damaged) are
embedded with the bundled model. In every round, first what the simulation is told, none of it
from a job of the sizes or of the numbers of processes that it is held against:

    start     the time and the processor time of a job with a single image
    decode    the processor time of a small and of a large image on one thread, which gives that
              of every image by its pixels
    model     the processor time of an image that is ready
    job       a job of an eighth of the tars in one process: the processor time of an image beyond
              decoding and model (reading, rows, files), and how many cores the process used
    cores     the processor time that as many busy processes as there are cores get in a second:
              less than the cores where something else runs as well

Then the jobs, each in a new folder and in processes of their own, from the start of the first
process to the end of the last one that lives, and `siglip_jax.plan.simulation` of the same tars.
The process that is killed gets SIGKILL at the same second as in the simulation; what it held is
taken over after a patience that is shortened for both. Printed are seconds of both and their
ratio, real over simulated, as median and range over rounds. On a machine that does other work as
well they say little: a load that changes within a round is not followed.
"""

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from job_resume import write_tars

from siglip_jax.plan.shard_costs import ShardCosts
from siglip_jax.plan.simulation import Cluster, simulate

PATIENCE = 8.0
SAMPLE = 600
BURN = 4.0  # seconds
JOB = """
import sys
from siglip_jax import jobs
done = jobs.embed(
    sys.argv[2:], sys.argv[1], model="siglip_emoji", shared=True, patience={patience}
)
assert done.finished, done
"""


def members(tars: Sequence[Path]) -> list[list[bytes]]:
    """The files in each tar."""
    found = []
    for path in tars:
        with tarfile.open(path) as tar:
            found.append([tar.extractfile(member).read() for member in tar])
    return found


def pixels(data: bytes) -> int:
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    return height * width


def calibrate(tars: Sequence[Path]) -> dict[str, float]:
    """What an image costs here; run in a process of its own."""
    import siglip_jax
    from siglip_jax.preprocessing import preprocess_image

    model = siglip_jax.load("siglip_emoji")
    image, scorer = model.profile.image, model.scorer(tokenizer=False)
    files = [data for tar in members(tars) for data in tar]
    good = [data for data in files if data.endswith(b"\xff\xd9")]
    large = [data for data in good if pixels(data) > 1e6][:2]
    small = [data for data in good if pixels(data) < 1e6][:SAMPLE]

    def cpu(some: list[bytes]) -> float:
        begin = time.thread_time()
        for data in some:
            preprocess_image(data, image)
        return (time.thread_time() - begin) / len(some)

    cpu(small[:50])  # imports what it needs
    one, many = cpu(small), cpu(large)
    mean_small, mean_large = (np.mean([pixels(d) for d in some]) for some in (small, large))
    slope = (many - one) / (mean_large - mean_small)
    ready = [preprocess_image(data, image) for data in small]
    batch = np.stack((ready * 4)[: 4 * SAMPLE])
    scorer.embed_images(batch)  # compiles
    before = time.process_time()
    scorer.embed_images(batch)
    return {
        "fixed": one - slope * mean_small,
        "per_pixel": slope,
        "model_cpu": (time.process_time() - before) / len(batch),
    }


def cores() -> float:
    """Seconds of a processor that are to be had in one, of all cores."""
    code = "import time as t\nwhile t.monotonic() < {end}: pass\nprint(t.process_time())"
    begin = time.monotonic()
    command = [sys.executable, "-c", code.format(end=begin + BURN)]
    pipe = {"stdout": subprocess.PIPE, "text": True}
    busy = [subprocess.Popen(command, **pipe) for _ in range(os.cpu_count() or 1)]
    used = sum(float(process.communicate()[0]) for process in busy)
    return used / (time.monotonic() - begin)


def job(out: Path, tars: Sequence[Path]) -> subprocess.Popen[bytes]:
    code = JOB.format(patience=PATIENCE)
    return subprocess.Popen([sys.executable, "-c", code, str(out), *map(str, tars)])


def real(out: Path, tars: Sequence[Path], processes: int, kill: float | None) -> float:
    """Seconds of a job; the last process is killed after `kill` of them."""
    begin = time.monotonic()
    running = [job(out, tars) for _ in range(processes)]
    if kill is not None:
        time.sleep(max(0.0, begin + kill - time.monotonic()))
        os.kill(running[-1].pid, signal.SIGKILL)
        running.pop().wait()
    for process in running:
        if process.wait():
            raise SystemExit(f"a process of the job ended with {process.returncode}")
    return time.monotonic() - begin


def alone(out: Path, tars: Sequence[Path]) -> tuple[float, float]:
    """Seconds, and those of a processor, of a job in one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = real(out, tars, 1, None)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def costs_of(tars: Sequence[Path], known: dict[str, float]) -> ShardCosts:
    """The shards as they are, with nothing drawn."""
    sizes = [[pixels(data) for data in tar] for tar in members(tars)]
    each = [
        sum(known["fixed"] + known["per_pixel"] * n + known["model_cpu"] for n in tar)
        + known.get("handling", 0.0) * len(tar)
        for tar in sizes
    ]
    items = np.array([len(tar) for tar in sizes])
    return ShardCosts(items, np.array(each), items * 0.0, items * 0.0)


def learn_from_a_job(known: dict[str, float], out: Path, tars: Sequence[Path]) -> None:
    """Adds what an image costs beyond decoding and model, and the cores that a process uses."""
    seconds, cpu = alone(out, tars)
    costs, used = costs_of(tars, known), cpu - known["start_cpu"]
    known["handling"] = (used - costs.cpu.sum()) / costs.items.sum()
    known["parallel"] = used / (seconds - known["start"])


def cluster_of(known: dict[str, float], processes: int) -> Cluster:
    """This machine, whose cores decode and compute."""
    return Cluster(
        cores=known["cores"],
        processes=processes,
        parallel=known["parallel"],
        start=known["start"],
        start_cpu=known["start_cpu"],
        patience=PATIENCE,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calibrate", nargs="+", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.calibrate:
        print(json.dumps(calibrate(args.calibrate)))
        return
    ratios: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "tars").mkdir()
        write_tars(folder / "tars", args.images)
        tars = sorted((folder / "tars").iterdir())
        one = folder / "one.tar"
        with tarfile.open(tars[0]) as source, tarfile.open(one, "w") as tar:
            member = source.next()
            tar.addfile(member, source.extractfile(member))
        quarter, eighth = tars[: -(-len(tars) // 4)], tars[: -(-len(tars) // 8)]
        for number in range(args.rounds):
            command = [sys.executable, __file__, "--calibrate", *map(str, tars)]
            known: dict[str, Any] = json.loads(subprocess.check_output(command))
            known["cores"] = cores()
            known["start"], known["start_cpu"] = alone(folder / f"start{number}", [one])
            learn_from_a_job(known, folder / f"eighth{number}", eighth)
            print(" ".join(f"{name} {value:.4g}" for name, value in known.items()), flush=True)
            for name, some, processes, killed in (
                ("1 process, a quarter", quarter, 1, False),
                ("1 process", tars, 1, False),
                ("2 processes", tars, 2, False),
                ("2 processes, one killed", tars, 2, True),
            ):
                costs = costs_of(some, known)
                cluster = cluster_of(known, processes)
                whole = simulate(costs, cluster, seed=number).seconds
                kill = cluster.start + 0.4 * (whole - cluster.start) if killed else None
                kills = [(kill, processes - 1)] if kill else []
                drawn = [
                    simulate(costs, cluster, seed=seed, kills=kills).seconds for seed in range(20)
                ]
                expected = statistics.median(drawn)
                out = folder / f"{number}-{len(ratios)}-{processes}-{killed}-{len(some)}"
                seconds = real(out, some, processes, kill)
                ratios.setdefault(name, []).append(seconds / expected)
                print(
                    f"  {name:24} real {seconds:6.1f} s  simulated {expected:6.1f} s "
                    f"({min(drawn):.1f} to {max(drawn):.1f})  ratio {seconds / expected:.2f}",
                    flush=True,
                )
    print(f"{len(tars)} tars, {args.images:,} images, {os.cpu_count()} cores; real / simulated")
    for name, each in ratios.items():
        print(f"  {name:24} {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})")


if __name__ == "__main__":
    main()
