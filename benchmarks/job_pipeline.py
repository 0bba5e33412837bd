"""A bulk job from JPEG files to Parquet, against decoding alone and the model alone.

    python benchmarks/job_pipeline.py [--rounds N] [--files N] [--box-files N]

Seeded photographs of 500x375 pixels (decode_speed.py) in a folder; a model with random
weights of the size of siglip_b16_224, and the bundled model. In every round, in turn:

    decode    the pool of threads that a job uses, doing nothing but read, decode, resize
    model     `Scorer.embed_images` of pictures that are ready
    job       `siglip_jax.jobs.run.embed` of the same files, without compiling

On a CPU the model computes where pictures are decoded, so that decoding cannot hide behind
it: `bound` is the rate at which the same cores do one after the other, 1 / (1/decode +
1/model), which no job could exceed if each kept all cores busy. Printed are the rates and, as
the median and range over rounds, the job's as a share of the slower side and of the bound.

Results: benchmarks/RESULTS.md.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from decode_speed import photographs
from score_photographs import random_params

import siglip_jax
from siglip_jax.checkpoints import find
from siglip_jax.jobs.run import embed
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import preprocess_image, profile_for
from siglip_jax.pretrained import Pretrained

BATCH = 32
DISTINCT = 200


def write_files(folder: Path, count: int) -> list[Path]:
    """`count` JPEG files, of which `DISTINCT` differ."""
    folder.mkdir()
    distinct = photographs(min(count, DISTINCT), 500, 375)
    files = [folder / f"{index:06}.jpg" for index in range(count)]
    for index, file in enumerate(files):
        file.write_bytes(distinct[index % len(distinct)])
    return files


def random_b16() -> Pretrained:
    checkpoint = find("siglip_b16_224")
    return Pretrained(
        name="random weights of the size of siglip_b16_224",
        model=SiglipModel(checkpoint.config),
        params=jax.device_put(random_params(checkpoint.config)),
        profile=profile_for(checkpoint),
        checkpoint=checkpoint,
    )


def rate(count: int, work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def measure(model: Pretrained, folder: Path, files: list[Path], rounds: int) -> None:
    threads = len(os.sched_getaffinity(0))
    scorer = model.scorer(tokenizer=False, batch_size=BATCH)
    image = model.profile.image
    distinct = [preprocess_image(file, image) for file in files[:DISTINCT]]
    ready = np.stack([distinct[index % len(distinct)] for index in range(len(files))])
    scorer.embed_images(ready[:BATCH])  # compiles

    def decode() -> None:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda file: preprocess_image(file, image), files):
                pass

    rates: dict[str, list[float]] = {"decode": [], "model": [], "job": []}
    for number in range(rounds):
        rates["decode"].append(rate(len(files), decode))
        rates["model"].append(rate(len(files), lambda: scorer.embed_images(ready)))
        out = folder.with_name(f"out{len(files)}-{number}")
        done = embed(str(folder), out, model=model, batch_size=BATCH)
        assert done.finished and done.items == len(files) and not done.errors
        rates["job"].append(done.run["rate"])
    print(f"{model.name}, {len(files)} files, {threads} cores")
    for name, each in rates.items():
        print(f"  {name:6} {statistics.median(each):8.1f} images/s")
    rows = list(zip(*rates.values(), strict=True))
    for name, limits in (
        ("the slower side", [min(d, m) for d, m, _ in rows]),
        ("the bound", [1 / (1 / d + 1 / m) for d, m, _ in rows]),
    ):
        shares = sorted(job / limit for (_, _, job), limit in zip(rows, limits, strict=True))
        print(
            f"  job / {name}: {statistics.median(shares):.2f} "
            f"({shares[0]:.2f} to {shares[-1]:.2f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=256, help="for the model of size B/16")
    parser.add_argument("--box-files", type=int, default=4096, help="for the bundled model")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name, model, count in (
            ("box", siglip_jax.load("siglip_emoji"), given.box_files),
            ("b16", random_b16(), given.files),
        ):
            folder = Path(temporary) / name
            measure(model, folder, write_files(folder, count), given.rounds)


if __name__ == "__main__":
    main()
