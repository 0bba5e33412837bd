"""One core from JPEG files to what a tower takes: our profiles beside the systems they follow.

    python benchmarks/preprocessing_speed.py [--python torch=/path/to/python] [--rounds N]

The files of decode_speed.py, in a folder. Two processes on one core, one of which sleeps while
the other is at work: ours, and one of `--python` with torch, which uses one thread. Round after
round each prepares all files of a size in every way; what is counted is the processor time of
the process, and a ratio is of two times from the same round, printed as median and range.

    transformers   `load_image` and the `SiglipImageProcessor` that checkpoints have; ours is
                   `preprocess_image` under the profile transformers
    open_clip      `Image.open` and `image_transform_v2` as SigLIP's `squash`; ours under the
                   profile open_clip
    big_vision     ours alone, beside transformers' time

Theirs are normalised floats, ours bytes that the device normalises; `to floats` is ours with
the normalising on the host. How far the two are apart is printed, of grey levels.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {(500, 375): 24, (2000, 1500): 6}  # width, height: how many
SIDE = 224


def ours() -> dict[str, Callable[[Path], np.ndarray]]:
    from siglip_jax.allocator import keep_freed_memory
    from siglip_jax.checkpoints import find
    from siglip_jax.preprocessing import preprocess_image, profile_for, to_float

    keep_freed_memory()
    made: dict[str, Callable[[Path], np.ndarray]] = {}
    for name in ("transformers", "open_clip", "big_vision"):
        profile = profile_for(find("siglip_b16_224"), name).image
        made[name] = lambda file, profile=profile: preprocess_image(file, profile)
        made[f"{name} to floats"] = lambda file, profile=profile: to_float(
            preprocess_image(file, profile), profile.value_range
        )
    return made


def theirs() -> dict[str, Callable[[Path], np.ndarray]]:
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image
    from transformers import SiglipImageProcessor
    from transformers.image_utils import load_image

    torch.set_num_threads(1)
    processor = SiglipImageProcessor()
    half = (0.5, 0.5, 0.5)
    cfg = PreprocessCfg(size=SIDE, mean=half, std=half, resize_mode="squash")
    transform: Any = image_transform_v2(cfg, is_train=False)

    def transformers(file: Path) -> np.ndarray:
        made = processor(images=load_image(str(file)), return_tensors="pt")["pixel_values"]
        return made[0].permute(1, 2, 0).numpy()

    def open_clip(file: Path) -> np.ndarray:
        return transform(Image.open(file)).permute(1, 2, 0).numpy()

    return {"transformers": transformers, "open_clip": open_clip}


def serve(whose: str) -> None:
    """Answers each line {way, files, out} with the seconds an image."""
    ways = {"ours": ours, "theirs": theirs}[whose]()
    print(json.dumps(list(ways)), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        way, files = ways[asked["way"]], list(map(Path, asked["files"]))
        if asked["out"]:  # to be compared, and the first of its kind
            np.save(asked["out"], np.stack([way(file) for file in files]))
        start = time.process_time()
        for file in files:
            way(file)
        print((time.process_time() - start) / len(files), flush=True)


class System:
    def __init__(self, python: str, whose: str) -> None:
        command = [python, __file__, "--serve", whose]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin and self._process.stdout
        self._to, self._from = self._process.stdin, self._process.stdout
        self.ways: list[str] = json.loads(self._from.readline())

    def seconds(self, way: str, files: list[Path], out: Path | None = None) -> float:
        asked = {"way": way, "files": list(map(str, files)), "out": out and str(out)}
        self._to.write(json.dumps(asked) + "\n")
        self._to.flush()
        return float(self._from.readline())

    def close(self) -> None:
        self._to.close()
        self._process.wait()


def measure(systems: dict[str, System], files: list[Path], rounds: int, folder: Path) -> None:
    ways = [(whose, way) for whose, system in systems.items() for way in system.ways]
    seconds: dict[tuple[str, str], list[float]] = {}
    for one in ways:
        systems[one[0]].seconds(one[1], files, folder / f"{' '.join(one)}.npy")
    for _ in range(rounds):
        for whose, way in ways:
            took = systems[whose].seconds(way, files)
            seconds.setdefault((whose, way), []).append(took)
    for whose, way in ways:
        each = seconds[whose, way]
        line = f"  {whose:6} {way:23} {1 / statistics.median(each):7,.0f} images/s"
        name = way.removesuffix(" to floats")
        beside = ("theirs", "transformers" if name == "big_vision" else name)
        if whose == "ours" and beside in seconds:
            ratios = sorted(t / o for t, o in zip(seconds[beside], each, strict=True))
            line += f"   {statistics.median(ratios):5.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            if way.endswith("floats") and name != "big_vision":
                a, b = (np.load(folder / f"{' '.join(one)}.npy") for one in ((whose, way), beside))
                line += f"   at most {np.abs(a - b).max() * 127.5:.3f} grey levels apart"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=f"torch={sys.executable}", metavar="torch=EXE")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--core", type=int, help="of those this process may use: the last")
    parser.add_argument("--serve", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.serve)
    from decode_speed import photographs

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores) if given.core is None else given.core})
    systems = {"ours": System(sys.executable, "ours")}
    systems["theirs"] = System(given.python.removeprefix("torch="), "theirs")
    with tempfile.TemporaryDirectory() as temporary:
        for size, count in SIZES.items():
            files = []
            for number, data in enumerate(photographs(count, *size)):
                files.append(Path(temporary) / f"{size[0]}-{number}.jpg")
                files[-1].write_bytes(data)
            print(f"{size[0]}x{size[1]}, {count} files", flush=True)
            measure(systems, files, given.rounds, Path(temporary))
    for system in systems.values():
        system.close()


if __name__ == "__main__":
    main()
