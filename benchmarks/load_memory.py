"""Peak host memory of loading a checkpoint onto the CPU, as a multiple of its weights.

    python benchmarks/load_memory.py

Writes a seeded random checkpoint the size of `siglip_b16_224` (813 MB) to a
temporary folder in each format and form, loads it in a process of its own, and
prints that process's peak resident memory over that of one that has initialised
jax and loaded nothing. On the CPU the device is the host, so 1.0 is what the
weights themselves take.

Results: benchmarks/RESULTS.md.
"""

import argparse
import multiprocessing
import resource
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from siglip_jax.checkpoints import find
from siglip_jax.weights.layout import parameter_count, parameter_shapes
from siglip_jax.weights.npz import write_npz
from siglip_jax.weights.tensorstore_folder import write_folder


def write(name: str, scan: bool, path: str, **options: Any) -> None:
    """Writes a checkpoint of seeded float32 tensors, made one at a time."""
    shapes = parameter_shapes(find(name).config, scan_image=scan, scan_text=scan)
    rng = np.random.default_rng(0)
    items = ((key, rng.standard_normal(shape, np.float32)) for key, shape in shapes.items())
    if path.endswith(".npz"):
        write_npz(path, items, **options)
    else:
        write_folder(path, items)


def load(name: str, how: str, path: str) -> int:
    """Loads `path` as `how` says; by how many bytes the peak of memory grew."""
    import jax

    from siglip_jax.weights.load import load_params

    jax.device_put(np.zeros(1)).block_until_ready()
    before = _peak()
    if how == "read all, then put":
        with np.load(path) as file:
            params = jax.device_put(dict(file))
    else:
        scan = how == "stream to scan"
        params = load_params(path, find(name).config, scan_image=scan, scan_text=scan)
    jax.block_until_ready(params)
    return _peak() - before


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts kilobytes


def in_a_process(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls in a fresh process. All writing and loading is done so: on Linux a process
    begins with the peak of its parent, which must therefore stay small."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **options).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", default="siglip_b16_224", help="whose size to use")
    name = parser.parse_args().checkpoint
    weights = 4 * parameter_count(find(name).config)
    with tempfile.TemporaryDirectory() as folder:
        for form in ("loop", "scan"):
            for kind in ("npz", "compressed npz", "tensorstore"):
                path = f"{folder}/{kind}-{form}" + (".npz" if "npz" in kind else ".bv")
                options = {"compressed": True} if kind == "compressed npz" else {}
                in_a_process(write, name, form == "scan", path, **options)
                ways = ["stream to loop", "stream to scan"]
                if kind == "npz":
                    ways.insert(0, "read all, then put")
                for how in ways:
                    grown = in_a_process(load, name, how, path)
                    print(f"{kind:15} {form:5} {how:20} {grown / weights:.2f}x", flush=True)


if __name__ == "__main__":
    main()
