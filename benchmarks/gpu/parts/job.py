"""A job from JPEG files to Parquet, beside decoding alone and the model alone."""

import collections
import io
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from parts.device import describe
from PIL import Image
from results import Results
from sizes import FAST, config_for
from weights import tree

from siglip_jax.data.item import Item
from siglip_jax.jobs.run import embed
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import custom_profile, preprocess_image
from siglip_jax.pretrained import Pretrained
from siglip_jax.scoring.preparation import Preparer


def run(results: Results) -> None:
    describe(results)
    scale = results.scale
    case = scale.host
    config, batch = config_for(case), case.batches[0]
    params = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, FAST.weights), tree(config))
    params |= {name: jax.numpy.asarray(params[name], "float32") for name in ("t", "b")}
    model = Pretrained(
        name=f"random weights of the size of {case.model}",
        model=SiglipModel(config, FAST),
        params=params,
        profile=custom_profile(config, pad=1),
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        files = write(folder, scale.files, scale.photographs)
        image = model.profile.image
        distinct = [preprocess_image(file, image) for file in files[: scale.photographs]]
        ready = np.stack([distinct[i % len(distinct)] for i in range(min(len(files), 20 * batch))])
        scorer = model.scorer(tokenizer=False, batch_size=batch)
        scorer.embed_images(ready[:batch])  # compiles
        threads = len(os.sched_getaffinity(0))

        items = [Item(str(number), str(file)) for number, file in enumerate(files)]

        def decode(processes: bool) -> float:
            prepare = Preparer("images", config, model.profile, processes=processes)
            together = prepare.together(len(files))
            groups = [items[i : i + together] for i in range(0, len(items), together)]
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(prepare.several, groups[:threads]))  # starts processes
                done = pool.map(prepare.several, groups)
                made = rate(len(files), lambda: collections.deque(done, 0))
            prepare.end_processes()
            return made

        by_threads, by_processes = decode(False), decode(True)
        decoding = max(by_threads, by_processes)
        computing = rate(len(ready), lambda: scorer.embed_images(ready))
        results.measured(
            "alone",
            decode=by_threads,
            decode_in_processes=by_processes,
            model=computing,
            threads=threads,
        )
        out = Path(temporary) / "out"
        done = embed(
            str(folder),
            out,
            model=model,
            batch_size=batch,
            decode_processes=threads if by_processes > by_threads else 0,
        )
        job = done.run["rate"]
        results.measured(
            "JPEG files to Parquet",
            files=len(files),
            per_second=job,
            bound_by="decoding" if decoding < computing else "the model",
            share_of_the_bound=job / min(decoding, computing),
        )
        results.check("items that the job did not embed", len(files) - done.items, 0)


def rate(count: int, work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def write(folder: Path, count: int, distinct: int) -> list[Path]:
    """`count` JPEG files, of which `distinct` differ."""
    folder.mkdir()
    made = [photograph(seed) for seed in range(min(count, distinct))]
    files = [folder / f"{index:06}.jpg" for index in range(count)]
    for index, file in enumerate(files):
        if index < len(made):
            file.write_bytes(made[index])
        else:  # gigabytes, if each were a copy
            file.hardlink_to(files[index % len(made)])
    return files


def photograph(seed: int) -> bytes:
    """A JPEG file of 500x375 pixels that compresses as photographs do: 30 to 70 kB.

    Noise at every scale, the coarser the stronger, as the spectrum of photographs has it.
    """
    rng = np.random.default_rng(seed)
    pixels = np.full((375, 500, 3), 128.0, np.float32)
    for step in (1, 2, 4, 8, 16, 32, 64, 128):
        small = rng.normal(0, 2 + 6 * np.log2(step), (375 // step + 2, 500 // step + 2, 3))
        grown = Image.fromarray((small + 128).clip(0, 255).astype(np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        pixels += np.asarray(grown, np.float32) - 128
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()
