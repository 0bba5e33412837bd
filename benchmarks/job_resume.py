"""A bulk job of 20,000 pictures, killed ten times at random, beside one that was left alone.

    python benchmarks/job_resume.py

Writes seeded JPEGs of 64 to 320 pixels a side, eight of 24 megapixels and one damaged in 500
into 80 tars, embeds them with the bundled model, kills that with SIGKILL ten times and
goes on each time, embeds them once more in one go, and compares all files. Memory is the
largest resident set of any of the processes.

Results: benchmarks/RESULTS.md.
"""

import argparse
import io
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg

KILLS = 10
SHARD = 250


def write_tars(folder: Path, count: int) -> None:
    """Tars of pictures: colour gradients with noise, so that they compress as photographs do."""
    rng = np.random.default_rng(0)
    large = set(rng.choice(count, 8, replace=False).tolist())
    for start in range(0, count, SHARD):
        with tarfile.open(folder / f"{start // SHARD:03d}.tar", "w") as tar:
            for i in range(start, min(start + SHARD, count)):
                height, width = (4000, 6000) if i in large else rng.integers(64, 321, 2)
                across, down = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
                colours = rng.uniform(0, 255, (2, 3))
                pixels = across[..., None] * colours[0] + down[..., None] * colours[1]
                pixels += rng.normal(0, 8, (height, width, 1))
                data = simplejpeg.encode_jpeg(np.clip(pixels, 0, 255).astype(np.uint8))
                if i % 500 == 499:
                    data = data[: len(data) // 2]
                member = tarfile.TarInfo(f"{i:06d}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def start(tars: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "siglip_jax.cli.main", "embed", str(tars), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)


def entries(out: Path) -> int:
    return len(list((out / "ledger").glob("[0-9]*.json"))) if (out / "ledger").is_dir() else 0


def running(process: subprocess.Popen[str]) -> bool:
    """Whether it is; what it used can still be asked for if not."""
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, how) is None


def ended(process: subprocess.Popen[str]) -> tuple[str, float]:
    """What it said, and its largest resident set in MB."""
    said = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"the job ended with {process.returncode}: {said}")
    return said.strip(), usage.ru_maxrss / 1024


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("summary.json", ".lock")
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        tars = Path(scratch) / "tars"
        tars.mkdir()
        # Elsewhere, because a process counts as at least as large as the one that started it.
        writer = multiprocessing.get_context("spawn").Process(
            target=write_tars, args=(tars, args.count)
        )
        writer.start()
        writer.join()
        killed, whole = Path(scratch) / "killed", Path(scratch) / "whole"
        most, began, again = 0.0, time.monotonic(), 0
        for _ in range(KILLS):
            process = start(tars, killed)
            until = entries(killed) + rng.randint(0, args.count // SHARD // KILLS - 1)
            while entries(killed) <= until and running(process):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 1))
            os.kill(process.pid, signal.SIGKILL)
            most = max(most, ended(process)[1])
            again += process.returncode == -signal.SIGKILL
        said, memory = ended(start(tars, killed))
        seconds, most = time.monotonic() - began, max(most, memory)
        print(f"killed {again} times: {seconds:.0f} s, at most {most:,.0f} MB")
        began = time.monotonic()
        said, memory = ended(start(tars, whole))
        print(f"left alone: {time.monotonic() - began:.0f} s, at most {memory:,.0f} MB")
        print(re.sub(r"^\S+: ", "", said))
        one, other = contents(killed), contents(whole)
        if one != other:
            names = [name for name in {*one, *other} if one.get(name) != other.get(name)]
            raise SystemExit(f"{len(names)} files differ, such as {sorted(names)[0]}")
        size = sum(map(len, one.values()))
        print(f"{len(one)} files of {size / 1e6:.1f} MB in all are the same, byte for byte")


if __name__ == "__main__":
    main()
