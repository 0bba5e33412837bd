"""Images a second that a job's threads prepare, and its processes: 1, 2, 4, ... of each.

    python benchmarks/decode_processes.py [--counts N ...] [--rounds N] [--seconds S]

The way of a job from files to what the model takes, without the model: items are read in a
thread, prepared in a pool (`Preparer`), and taken in order. In every round, in turn, for each
of `--counts` (default: 1, 2, 4, ... up to the cores): so many threads; so many threads with a
process each; and `apart`: so many Python processes that each prepare with one thread and hand
nothing over, which is what the cores can do. Printed are the median rates, the ratio of
processes to threads in the same round, and the share of what as many times one thread does (of
the first count). `small` are images of 32x32 pixels, which take next to no time to decode: the
most that one process of a job can hand out, whatever decodes for it.

Results: benchmarks/RESULTS.md.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from decode_speed import photographs

from siglip_jax.allocator import keep_freed_memory
from siglip_jax.checkpoints import find
from siglip_jax.data.item import Item
from siglip_jax.preprocessing import profile_for
from siglip_jax.scoring.preparation import Preparer
from siglip_jax.scoring.reading import Feed

_AHEAD = 512  # items, as of two batches of 256
WAYS = ("threads", "processes", "apart")


def apart(count: int, files: list[Path], seconds: float) -> float:
    """Images a second of so many processes, which begin together."""
    command = [sys.executable, __file__, "--child", str(seconds), *map(str, files)]
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(count)
        ]
        for each in children:
            assert each.stdout and each.stdout.readline() == "ready\n"
        for each in children:
            assert each.stdin
            each.stdin.write("go\n")
            each.stdin.flush()
        return sum(float(each.stdout.readline()) for each in children if each.stdout)


def child(seconds: float, files: list[Path]) -> None:
    rate(1, files, False, 0.1)
    print("ready", flush=True)
    sys.stdin.readline()
    print(rate(1, files, False, seconds), flush=True)


def rate(count: int, files: list[Path], processes: bool, seconds: float) -> float:
    """Images a second by `count` threads, each with a process or not."""
    checkpoint = find("siglip_b16_224")
    profile = profile_for(checkpoint)
    prepare = Preparer("images", checkpoint.config, profile, processes=processes)
    with ThreadPoolExecutor(count) as pool:
        together = prepare.together(_AHEAD // (2 * count))
        groups = [list(_items(files, together)) for _ in range(4 * count)]
        list(pool.map(prepare.several, groups))  # starts processes

        def until():
            end = time.perf_counter() + seconds
            for item in _items(files, 1 << 40):
                if time.perf_counter() > end:
                    return
                yield item

        start, done = time.perf_counter(), 0
        options = {"ahead": _AHEAD, "memory": 2**28, "together": together}
        for prepared in Feed(until(), prepare.several, pool, **options):
            assert prepared.error is None
            done += 1
        took = time.perf_counter() - start
    prepare.end_processes()
    return done / took


def _items(files: list[Path], count: int):
    for number in range(count):
        yield Item(str(number), str(files[number % len(files)]))


def measure(name: str, files: list[Path], counts: list[int], rounds: int, seconds: float) -> None:
    rates: dict[tuple[int, str], list[float]] = {}
    for _ in range(rounds):
        for count in counts:
            for way in WAYS:
                if way == "apart":
                    got = apart(count, files, seconds)
                else:
                    got = rate(count, files, way == "processes", seconds)
                rates.setdefault((count, way), []).append(got)
    alone = statistics.median(rates[counts[0], "threads"]) / counts[0]
    print(f"{name}, images/s")
    print("         threads           processes         apart           processes / threads")
    for count in counts:
        threads, processes = rates[count, "threads"], rates[count, "processes"]
        ratios = sorted(p / t for p, t in zip(processes, threads, strict=True))
        middle = [statistics.median(rates[count, way]) for way in WAYS]
        shares = [f"{each:8,.0f} ({each / count / alone:4.0%})" for each in middle]
        print(
            f"  {count:3}   {'   '.join(shares)}   {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--counts", type=int, nargs="+", metavar="N")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    keep_freed_memory()
    if given.child is not None:
        return child(given.child, given.files)
    counts = given.counts or [1 << n for n in range(cores.bit_length()) if 1 << n < cores] + [cores]
    with tempfile.TemporaryDirectory() as temporary:
        for name, size, distinct in (("500x375", (500, 375), 24), ("small", (32, 32), 24)):
            files = []
            for number, data in enumerate(photographs(distinct, *size)):
                files.append(Path(temporary) / f"{name}-{number}.jpg")
                files[-1].write_bytes(data)
            measure(name, files, counts, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
