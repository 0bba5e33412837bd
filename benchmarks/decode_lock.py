"""How long one image of a job holds Python's lock, which the threads of a process share.

    python benchmarks/decode_lock.py [--images N] [--rounds N] [--ways WAY...]

A child process prepares photographs (decode_speed.py) as a job does, with one thread that
decodes (`Feed`, `Preparer`; the model left out), and this one looks some 10,000 times a second
whether any of the child's threads has the lock: the pointer to the thread that runs, in the
child's memory. The share of looks at which one has, of the seconds an image takes, is the time
for which nothing else in that process can run Python. Its inverse is what more threads could
reach at most, however many cores there are. In every round, in turn: each profile by the thread
itself, and `processes`: big_vision by a process of its own, which the thread hands the file.
A lock that is held by a thread which waits for a core counts as held, so that a busy machine
shows more than there is.

    share    of the time of an image, for which the lock is held
    held     so many microseconds
    most     images a second, at which the lock would never be free

For CPython 3.11 on Linux, where that pointer has one place. Results: benchmarks/RESULTS.md.
"""

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from decode_speed import photographs

_SCANNED = 4096  # bytes of the interpreter's state in which the pointer lies
WAYS = ("big_vision", "transformers", "open_clip", "processes")


def child(images: int) -> None:
    """Says where to look; then prepares images for each line that comes."""
    from siglip_jax.allocator import keep_freed_memory
    from siglip_jax.checkpoints import find
    from siglip_jax.data.item import Item
    from siglip_jax.preprocessing import profile_for
    from siglip_jax.scoring.preparation import Preparer
    from siglip_jax.scoring.reading import Feed

    keep_freed_memory()
    checkpoint = find("siglip_b16_224")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        files = [Path(folder) / f"{number}.jpg" for number in range(24)]
        for file, data in zip(files, photographs(len(files), 500, 375), strict=True):
            file.write_bytes(data)

        def run(prepare: Preparer, count: int) -> None:
            items = (Item(str(n), str(files[n % len(files)])) for n in range(count))
            options = {"ahead": 64, "memory": 2**28, "together": prepare.together(8)}
            for prepared in Feed(items, prepare.several, pool, **options):
                assert prepared.error is None

        print(_place(), flush=True)
        for line in sys.stdin:
            way = line.strip()
            profile = profile_for(checkpoint, "big_vision" if way == "processes" else way)
            processes = way == "processes"
            prepare = Preparer("images", checkpoint.config, profile, processes=processes)
            run(prepare, len(files))
            print("begin", flush=True)
            start = time.perf_counter()
            run(prepare, images)
            print((time.perf_counter() - start) / images, flush=True)
            if way == "processes":
                prepare.end_processes()


def _place() -> int:
    """The address of the pointer to the thread that runs, which is this one."""
    base = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    ctypes.pythonapi.PyThreadState_Get.restype = ctypes.c_void_p
    mine = ctypes.pythonapi.PyThreadState_Get()
    words = (ctypes.c_void_p * (_SCANNED // 8)).from_address(base)
    places = [base + 8 * n for n, word in enumerate(words) if word == mine]
    # While a call of `ctypes.CDLL` runs nobody has the lock; other pointers stay.
    copied = ctypes.create_string_buffer(8 * len(places))
    copy = ctypes.CDLL(None).memcpy
    for n, place in enumerate(places):
        copy(ctypes.byref(copied, 8 * n), ctypes.c_void_p(place), 8)
    found = [p for n, p in enumerate(places) if not any(copied.raw[8 * n : 8 * n + 8])]
    if len(found) != 1:
        raise SystemExit(f"this Python keeps its running thread elsewhere: {len(found)} places")
    return found[0]


def look(process: subprocess.Popen, place: int, way: str) -> tuple[float, float]:
    """Seconds an image, and the share of them for which the lock was held."""
    assert process.stdin and process.stdout
    process.stdin.write(f"{way}\n".encode())
    assert process.stdout.readline() == b"begin\n"
    os.set_blocking(process.stdout.fileno(), False)
    held = total = 0
    with Path(f"/proc/{process.pid}/mem").open("rb", buffering=0) as memory:
        fd, free = memory.fileno(), bytes(8)
        while not (said := process.stdout.read()):
            for _ in range(100):
                held += os.pread(fd, 8, place) != free
                time.sleep(5e-5)  # the core is another process's, too
            total += 100
    os.set_blocking(process.stdout.fileno(), True)
    return float(said), held / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return child(given.images)
    process = subprocess.Popen(
        [sys.executable, __file__, "--child", "--images", str(given.images)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdin and process.stdout
    place = int(process.stdout.readline())
    seen: dict[str, list[tuple[float, float]]] = {way: [] for way in given.ways}
    for _ in range(given.rounds):
        for way in given.ways:
            seen[way].append(look(process, place, way))
    process.stdin.close()
    process.wait()
    for way, each in seen.items():
        shares = sorted(share for _, share in each)
        held = statistics.median(seconds * share for seconds, share in each)
        print(
            f"{way:13} {1 / statistics.median(s for s, _ in each):6,.0f} images/s   "
            f"share {statistics.median(shares):5.1%} ({shares[0]:.1%} to {shares[-1]:.1%})   "
            f"held {held * 1e6:4,.0f} us   most {1 / held:6,.0f} images/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
