"""Images a second that a job's threads prepare, and its processes: 1, 2, 4, ... of each.

    python benchmarks/decode_processes.py [--most N] [--rounds N] [--seconds S]

The way of a job from files to what the model takes, without the model: items are read in a
thread, prepared in a pool (`Preparer`), and taken in order. In every round, in turn, for each
number up to `--most` (default: cores): so many threads, and so many threads with a process
each. Printed are the median rates, the ratio of processes to threads in the same round, and
the share of that many times what one thread does. `small` are images of 32x32 pixels, which
take next to no time to decode: the most that one process of a job can hand out, whatever
decodes for it.

Results: benchmarks/RESULTS.md.
"""

import argparse
import os
import statistics
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


def rate(count: int, files: list[Path], processes: bool, seconds: float) -> float:
    """Images a second by `count` threads, each with a process or not."""
    checkpoint = find("siglip_b16_224")
    profile = profile_for(checkpoint)
    prepare = Preparer("images", checkpoint.config, profile, processes=processes)
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(prepare, _items(files, 8 * count)))  # starts processes

        def until():
            end = time.perf_counter() + seconds
            for item in _items(files, 1 << 40):
                if time.perf_counter() > end:
                    return
                yield item

        start, done = time.perf_counter(), 0
        for prepared in Feed(until(), prepare, pool, ahead=_AHEAD, memory=2**28):
            assert prepared.error is None
            done += 1
        took = time.perf_counter() - start
    prepare.end_processes()
    return done / took


def _items(files: list[Path], count: int):
    for number in range(count):
        yield Item(str(number), str(files[number % len(files)]))


def measure(name: str, files: list[Path], counts: list[int], rounds: int, seconds: float) -> None:
    rates: dict[tuple[int, bool], list[float]] = {}
    for _ in range(rounds):
        for count in counts:
            for processes in (False, True):
                got = rate(count, files, processes, seconds)
                rates.setdefault((count, processes), []).append(got)
    alone = statistics.median(rates[counts[0], False]) / counts[0]
    print(f"{name}, images/s\n         threads          processes        processes / threads")
    for count in counts:
        threads, processes = rates[count, False], rates[count, True]
        ratios = sorted(p / t for p, t in zip(processes, threads, strict=True))
        middle = [statistics.median(each) for each in (threads, processes)]
        shares = [f"{each:8,.0f} ({each / count / alone:4.0%})" for each in middle]
        print(
            f"  {count:3}   {'   '.join(shares)}   {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--most", type=int, default=cores, help="default: as there are cores")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    given = parser.parse_args()
    keep_freed_memory()
    counts = [1 << n for n in range(given.most.bit_length()) if 1 << n < given.most] + [given.most]
    with tempfile.TemporaryDirectory() as temporary:
        for name, size, distinct in (("500x375", (500, 375), 24), ("small", (32, 32), 24)):
            files = []
            for number, data in enumerate(photographs(distinct, *size)):
                files.append(Path(temporary) / f"{name}-{number}.jpg")
                files[-1].write_bytes(data)
            measure(name, files, counts, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
