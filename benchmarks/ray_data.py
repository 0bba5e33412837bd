"""Ray Data with two actors on this machine, against the plain job of the same images.

    python benchmarks/ray_data.py [--rounds N] [--files N] [--b16-files N]

Needs the extra `engines`. Seeded photographs of 500x375 pixels (decode_speed.py) in a folder; the
bundled model, and random weights of the size of siglip_b16_224. In every round, in turn:

    job    `siglip_jax.jobs.embed` of the folder, in a process of its own; its own rate, which
           leaves out loading and compiling
    ray    `read_binary_files` and `map_batches(ImageEmbedder)` with two actors; images a second
           from when both have done their first batch until the last is done

Batches of the model are equal. Printed are the median rates, the median and range of ray / job,
and the largest difference of an embedding.

Results: benchmarks/RESULTS.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from job_pipeline import random_b16, write_files

import siglip_jax
from siglip_jax.batch import ImageEmbedder

ACTORS, BATCH, ENGINE_BATCH = 2, 32, 128

JOB = """
import json, sys
from siglip_jax import jobs
folder, out, model, batch = sys.argv[1:]
import siglip_jax
done = jobs.embed(folder, out, model=siglip_jax.load(model), batch_size=int(batch))
assert done.finished and not done.errors
print(json.dumps(done.run["rate"]))
"""


class Timed(ImageEmbedder):
    """Says of each batch which process made it, and when that was done."""

    def __call__(self, batch: Any) -> Any:
        made = super().__call__(batch)
        made = made.append_column("process", pa.array([os.getpid()] * len(made)))
        return made.append_column("ended", pa.array([time.time()] * len(made)))


def job(folder: Path, out: Path, model: str) -> tuple[float, dict[str, np.ndarray]]:
    command = [sys.executable, "-c", JOB, folder, out, model, str(BATCH)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    table = pq.read_table(out / "data")
    return json.loads(said.splitlines()[-1]), embeddings(table, "key")


def engine(folder: Path, model: str) -> tuple[float, dict[str, np.ndarray]]:
    made = ray.data.read_binary_files(
        str(folder), include_paths=True, override_num_blocks=8 * ACTORS
    ).map_batches(
        Timed,
        fn_constructor_kwargs={
            "model": model,
            "image_column": "bytes",
            "keep": ["path"],
            "batch_size": BATCH,
        },
        batch_size=ENGINE_BATCH,
        batch_format="pyarrow",
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=ACTORS),
    )
    table = pa.concat_tables(ray.get(made.to_arrow_refs()))
    assert set(table["error"].to_pylist()) == {""}
    process, ended = (np.array(table[name].to_pylist()) for name in ("process", "ended"))
    actors = np.unique(process)
    assert len(actors) == ACTORS, "one actor did all: more files"
    warm = max(ended[process == actor].min() for actor in actors)
    return (ended > warm).sum() / (ended.max() - warm), embeddings(table, "path")


def embeddings(table: pa.Table, key: str) -> dict[str, np.ndarray]:
    rows = np.array(table["embedding"].to_pylist(), np.float32)
    names = [Path(name).name for name in table[key].to_pylist()]
    return dict(zip(names, rows, strict=True))


def measure(name: str, model: str, folder: Path, rounds: int) -> None:
    rates: dict[str, list[float]] = {"job": [], "ray": []}
    most = 0.0
    for number in range(rounds):
        of_job, expected = job(folder, folder.with_name(f"{folder.name}-out{number}"), model)
        of_ray, found = engine(folder, model)
        rates["job"].append(of_job)
        rates["ray"].append(of_ray)
        assert found.keys() == expected.keys(), "an image is missing"
        most = max(most, *(float(np.abs(found[key] - expected[key]).max()) for key in found))
    ratios = sorted(b / a for a, b in zip(rates["job"], rates["ray"], strict=True))
    print(f"{name}, {len(expected)} files, {ACTORS} actors, {os.cpu_count()} cores")
    for side, each in rates.items():
        print(f"  {side:4} {statistics.median(each):8.1f} images/s")
    print(
        f"  ray / job: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
        f"largest difference {most:.1e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=8192, help="for the bundled model")
    parser.add_argument("--b16-files", type=int, default=1024, help="for the model of size B/16")
    given = parser.parse_args()
    ray.init(num_cpus=ACTORS + 2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        if given.files:
            write_files(scratch / "small", given.files)
            measure("siglip_emoji", "siglip_emoji", scratch / "small", given.rounds)
        if given.b16_files:
            large = random_b16()
            siglip_jax.save(scratch / "b16", large.model, large.params, profile=large.profile)
            write_files(scratch / "large", given.b16_files)
            measure(large.name, str(scratch / "b16"), scratch / "large", given.rounds)
    ray.shutdown()


if __name__ == "__main__":
    main()
