"""One core from JPEG files to 224 x 224 pixels: this package, TensorFlow and Pillow.

    python benchmarks/decode_speed.py [--core N] [--rounds N]

Photographs that scikit-image and scikit-learn carry, cut, resized and given some noise with
a seed, as JPEG files of 500x375 and 2000x1500 pixels. Every way gets the same files in
every round, one thread on one core, and what is counted is the processor time of the whole
process, so that whatever else the machine does disturbs little; the ratios are of the same
round, of which the median and the range are printed.

    exact     preprocess_image under the big_vision profile
    draft     the same with `drafted(profile)`: other pixels, see low_precision.py
    decode    decode_image alone, under the big_vision profile
    tf        tf.io.decode_image and tf.image.resize in a tf.function, as big_vision's
              pipelines run them; its pixels are checked to be those of `exact`
    pillow    preprocess_image under the open_clip profile (bicubic, antialiased)

Results: benchmarks/RESULTS.md.
"""

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from siglip_jax.checkpoints import find
from siglip_jax.preprocessing import decode_image, drafted, preprocess_image, profile_for

SIZES = {(500, 375): 24, (2000, 1500): 6}  # width, height: how many


def photographs(count: int, width: int, height: int, seed: int = 0) -> list[bytes]:
    """JPEG files that look and compress as photographs of this size do."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(seed)
    names = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field")
    sources = [Image.fromarray(getattr(data, name)()) for name in names]
    sources += [Image.fromarray(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")]
    files = []
    for index in range(count):
        source = sources[index % len(sources)]
        share = rng.uniform(0.7, 1)
        w, h = int(source.width * share), int(source.height * share)
        x, y = rng.integers(0, source.width - w + 1), rng.integers(0, source.height - h + 1)
        size, filter_ = (width, height), Image.Resampling.LANCZOS
        pixels = np.asarray(source.resize(size, filter_, box=(x, y, x + w, y + h)), np.float32)
        pixels = pixels + rng.normal(0, 3, pixels.shape).astype(np.float32)  # of the sensor
        file = io.BytesIO()
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(file, "JPEG", quality=int(rng.integers(75, 93)))
        files.append(file.getvalue())
    return files


def ways(side: int) -> dict[str, Callable[[bytes], np.ndarray]]:
    """Name -> bytes of a file to pixels."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    profile = profile_for(find("siglip_b16_224"))
    pillow = profile_for(find("siglip_b16_224"), "open_clip").image
    exact, draft = profile.image, drafted(profile).image

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def tensorflow(data: Any) -> Any:
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
        return tf.cast(tf.image.resize(image, (side, side)), tf.uint8)

    return {
        "exact": lambda data: preprocess_image(data, exact, side),
        "draft": lambda data: preprocess_image(data, draft, side),
        "decode": lambda data: decode_image(data, exact),
        "tf": lambda data: tensorflow(data).numpy(),
        "pillow": lambda data: preprocess_image(data, pillow, side),
    }


def measure(size: tuple[int, int], count: int, rounds: int, side: int = 224) -> str:
    """The table of one size, as Markdown."""
    files, run = photographs(count, *size), ways(side)
    for data in files:
        np.testing.assert_array_equal(run["exact"](data), run["tf"](data))
    seconds: dict[str, list[float]] = {name: [] for name in run}
    for _ in range(rounds):
        for name, way in run.items():
            start = time.process_time()
            for data in files:
                way(data)
            seconds[name].append((time.process_time() - start) / count)
    kilobytes = sum(map(len, files)) / count / 1000
    lines = [f"{size[0]}x{size[1]}, {count} files of {kilobytes:.0f} kB on average"]
    for name, each in seconds.items():
        ratios = sorted(tf / ours for tf, ours in zip(seconds["tf"], each, strict=True))
        lines.append(
            f"  {name:7} {1 / statistics.median(each):7,.0f} images/s   "
            f"{statistics.median(ratios):5.2f}x tf ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", type=int, help="of those this process may use: the last")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores) if given.core is None else given.core})
    for size, count in SIZES.items():
        print(measure(size, count, given.rounds), flush=True)


if __name__ == "__main__":
    main()
