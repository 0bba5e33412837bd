"""Time and peak memory of conversions of models of real size, and whether every bit returns.

    python benchmarks/convert.py [--scan] [--compare] [NAME...] [--through FORMAT...]

For each checkpoint NAME writes seeded random weights of its shapes as a `.npz` to a
temporary folder, converts them through all formats and back, each in a process of its
own, and prints that process's time and peak resident memory: reading, writing, reading
back and all digests included. --compare also runs each folder in the library it is for.

Results: benchmarks/RESULTS.md.
"""

import argparse
import math
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.checkpoints import find
from siglip_jax.weights.layout import parameter_count, parameter_shapes

NAMES = ("siglip_b16_224", "siglip_so400m14_384", "siglip2_b16_naflex")
THROUGH = ("transformers", "open_clip", "tensorstore", "siglip_jax", "npz")
GB = 1e9


def random_weights(name: str, scan: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Float32 tensors under which activations neither vanish nor explode."""
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(find(name).config, scan_image=scan, scan_text=scan)
    for key, shape in shapes.items():
        array = rng.standard_normal(shape, np.float32)
        if key in "tb":
            array = np.full(shape, {"t": math.log(10), "b": -10}[key], np.float32)
        elif key.endswith("/scale"):
            array = 1 + array / 10
        elif key.endswith("/kernel"):
            layer = shape[1:] if scan and "/encoderblock/" in key else shape
            into_heads = key.split("/")[-2] in ("query", "key", "value")
            array /= math.sqrt(layer[0] if into_heads else math.prod(layer[:-1]))
        else:
            array /= 10
        yield key, array


def write(name: str, path: str, scan: bool) -> None:
    from siglip_jax.weights.npz import write_npz

    write_npz(path, random_weights(name, scan))


def convert(name: str, source: str, target: str, to: str) -> tuple[str, bool]:
    """The digest of all weights, and whether they are, bit for bit, the source's."""
    from siglip_jax.converters import convert

    row = find(name)
    config = row.config if Path(source).suffix in (".npz", ".bv") else None
    record = convert(source, target, to=to, config=config, pad=row.vocabulary.pad)
    return record.weights_sha256, record.exact and record.verified


def compare(folder: str, to: str) -> dict[str, Any]:
    from siglip_jax.verify.library_comparison import compare

    return compare(Path(folder), to)


def measured(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """What a call in a fresh process returns, its seconds and the process's peak in bytes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_call, function, arguments).result()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float, float]:
    start = time.monotonic()
    result = function(*arguments)
    # Linux counts kilobytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result, time.monotonic() - start, peak


def run(
    name: str, through: Sequence[str], folder: Path, *, scan: bool, with_libraries: bool
) -> None:
    config = find(name).config
    largest = 4 * max(map(math.prod, parameter_shapes(config).values()))
    total = 4 * parameter_count(config)
    print(f"{name}: {total / GB:.2f} GB, largest tensor {largest / GB:.2f} GB", flush=True)
    source, form = folder / "random.npz", "npz"
    measured(write, name, str(source), scan)
    digests = set()
    for to in through:
        suffix = {"npz": ".npz", "tensorstore": ".bv"}.get(to, "")
        target = folder / f"{to}{suffix}"
        arguments = (name, str(source), str(target), to)
        (digest, exact), seconds, peak = measured(convert, *arguments)
        digests.add(digest)
        said = "every bit" if exact and len(digests) == 1 else "NOT THE SAME"
        print(
            f"  {form:12} -> {to:12} {seconds:6.1f} s  peak {peak / GB:5.2f} GB  {said}", flush=True
        )
        if with_libraries and to in ("transformers", "open_clip"):
            report(target, to)
        if with_libraries and to == "open_clip":
            image = folder / "timm"
            (_, exact), seconds, peak = measured(convert, name, str(target), str(image), "timm")
            said = "every bit" if exact else "NOT THE SAME"
            print(
                f"  open_clip    -> timm         {seconds:6.1f} s  peak {peak / GB:5.2f} GB  {said}"
            )
            report(image, "timm")
            shutil.rmtree(image)
        remove(source)
        source, form = target, to
    remove(source)


def report(folder: Path, to: str) -> None:
    found, seconds, peak = measured(compare, str(folder), to)
    largest = ", ".join(f"{key} {value:.1e}" for key, value in found["largest_difference"].items())
    print(f"    {to} itself: {largest}; {seconds:.0f} s, peak {peak / GB:.1f} GB", flush=True)


def remove(path: Path) -> None:
    """A conversion's output, so that a disk need hold two of them."""
    for entry in (*path.parent.glob(f"{path.name}-*"), path):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--through", nargs="+", default=THROUGH, metavar="FORMAT")
    parser.add_argument("--scan", action="store_true", help="start with stacked blocks")
    parser.add_argument("--compare", action="store_true", help="in the other libraries, too")
    parser.add_argument("--folder", help="where to put the files (default: the temporary folder)")
    arguments = parser.parse_args()
    for name in arguments.names:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            run(
                name,
                arguments.through,
                Path(folder),
                scan=arguments.scan,
                with_libraries=arguments.compare,
            )


if __name__ == "__main__":
    main()
