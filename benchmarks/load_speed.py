"""Seconds and memory of loading B/16-224 on the CPU, from our formats and by transformers.

    python benchmarks/load_speed.py --vocabulary spiece.model --python torch=/path/to/python

The same random weights (813 MB) as `compare.py`, in the page cache, loaded by a fresh process
each time, in turns; imports are not counted. Mapped weights are only read when they are used:
"touched" is the time after which every page of every tensor has been read as well. Private
memory is what the process holds for itself alone by then, of /proc/self/smaps_rollup, beyond
what it held before loading, as a multiple of the weights; pages of a mapped file are
the page cache's own, which several processes share.

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

WEIGHTS = 4 * 203_155_970
FILES = {
    "siglip_jax folder": "siglip_jax",
    "siglip_jax .npz": "big_vision.npz",
    "transformers": "transformers",
}
HOW = tuple(FILES)


def once(how: str, folder: Path) -> dict[str, float]:
    """Loads in this process; seconds until loaded, until touched, and private memory."""
    load, touch = _ours(how, folder) if how.startswith("siglip") else _transformers(folder)
    before = _private()
    start = time.perf_counter()
    loaded = load()
    middle = time.perf_counter()
    touch(loaded)
    end = time.perf_counter()
    return {
        "loaded": middle - start,
        "touched": end - start,
        "private": (_private() - before) / WEIGHTS,
    }


def _ours(how: str, folder: Path) -> tuple[Callable[[], object], Callable[[object], None]]:
    import jax
    import numpy as np

    import siglip_jax
    import siglip_jax.converters.siglip_folder
    from siglip_jax.pretrained import load

    jax.device_put(np.zeros(1)).block_until_ready()
    path = folder / FILES[how]

    def touch(model: siglip_jax.Pretrained) -> None:
        for leaf in jax.tree.leaves(jax.block_until_ready(model.params)):
            np.asarray(leaf).reshape(-1).view(np.uint8)[::4096].sum()

    return lambda: load(path), touch


def _transformers(folder: Path) -> tuple[Callable[[], object], Callable[[object], None]]:
    import torch
    from transformers import SiglipModel

    torch.zeros(1).sum()

    def touch(model: torch.nn.Module) -> None:
        for leaf in model.state_dict().values():
            leaf.reshape(-1)[::1024].sum()

    return lambda: SiglipModel.from_pretrained(folder / "transformers"), touch


def _private() -> int:
    """Bytes of this process that no other shares, the mapped files' pages apart."""
    total = 0
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Anonymous":
            total += int(value.split()[0]) * 1024
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=Path, help="c4_en's sentencepiece file")
    parser.add_argument("--python", action="append", default=[], metavar="torch|jax=EXE")
    parser.add_argument("--keep", type=Path, help="folder for the models, used again if there")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--once", choices=HOW, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        # Libraries print while they load; the last line is ours.
        print(json.dumps(once(args.once, args.keep)))
        return
    from compare import prepare, quartiles
    from start import warm

    pythons = dict.fromkeys(("jax", "big_vision", "torch"), sys.executable)
    pythons |= dict(entry.split("=", 1) for entry in args.python)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        prepare(folder, args.vocabulary, pythons)
        found: dict[str, list[dict[str, float]]] = {how: [] for how in HOW}
        for _ in range(args.rounds):
            for how in HOW:
                python = pythons["torch" if how == "transformers" else "jax"]
                warm(folder / FILES[how])
                command = [python, __file__, "--once", how, "--keep", folder]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found[how].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{args.rounds} rounds; share of transformers' time that each takes")
    for how, runs in found.items():
        cells = []
        for key in ("loaded", "touched"):
            pairs = zip(runs, found["transformers"], strict=True)
            low, middle, high = quartiles([a[key] / b[key] for a, b in pairs])
            seconds = statistics.median(run[key] for run in runs)
            cells.append(f"{key} {seconds:.2f} s {middle:.2f} ({low:.2f} to {high:.2f})")
        private = statistics.median(run["private"] for run in runs)
        print(f"{how:18} {'  '.join(cells)}  private {private:.2f}x")


if __name__ == "__main__":
    main()
