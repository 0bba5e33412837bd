"""`siglip-jax score` on real photographs, in every image mode, at the size of B/16.

    python benchmarks/score_photographs.py [--keep FOLDER]

Writes a checkpoint of the exact shape of siglip_b16_224 from a seeded random
initialisation (813 MB, in a temporary folder unless kept), and the photographs that
scikit-image and scikit-learn carry as RGB, grey, palette, alpha, CMYK, 16-bit,
EXIF-rotated and animated files, beside one truncated file and one that is no
picture; then runs the command as a user would, twice, and prints its table and
each run's time and peak memory. The weights are random: the table shows that
everything works, not what is in the pictures.

Results: benchmarks/RESULTS.md.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

from siglip_jax.checkpoints import find
from siglip_jax.config import Siglip
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import custom_profile
from siglip_jax.pretrained import save
from siglip_jax.weights.layout import parameter_shapes

VOCABULARY = Path(__file__).parents[1] / "tests" / "fixtures" / "tiny.model"
LABELS = ["a dog", "a cat", "a donut", "a beignet"]


def random_params(config: Siglip, seed: int = 0) -> dict:
    """Weights of unit scale: kernels by fan-in, norms one, biases small."""
    rng = np.random.default_rng(seed)
    tree: dict = {}
    for name, shape in parameter_shapes(config).items():
        values = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("scale"):
            values = 1 + np.float32(0.1) * values
        elif name.endswith("bias"):
            values *= np.float32(0.02)
        elif name.endswith(("kernel", "embedding", "probe")):
            rows = (
                np.prod(shape[:-1])
                if name.endswith(("out/kernel", "embedding/kernel"))
                else shape[0]
            )
            values /= np.sqrt(np.float32(shape[-1] if name.endswith("Embed_0/embedding") else rows))
        *path, leaf = name.split("/")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = values
    tree["t"], tree["b"] = np.float32([np.log(10)]), np.float32([-10])
    return tree


def write_pictures(folder: Path) -> None:
    """One photograph a mode."""
    folder.mkdir(parents=True, exist_ok=True)
    photo = {
        name: Image.fromarray(getattr(data, name)()) for name in ("astronaut", "chelsea", "coffee")
    }
    photo |= {n: Image.fromarray(load_sample_image(f"{n}.jpg")) for n in ("china", "flower")}
    for name in ("chelsea", "china"):
        photo[name].save(folder / f"{name}_rgb.jpg")
    photo["coffee"].convert("L").save(folder / "coffee_grey.png")
    photo["flower"].convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "flower_palette.gif")
    photo["china"].convert("CMYK").save(folder / "china_cmyk.jpg")
    alpha = photo["astronaut"].copy()
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    alpha.save(folder / "astronaut_alpha.png")
    deep = np.asarray(data.camera(), np.uint16) * 257
    Image.fromarray(deep).save(folder / "camera_16bit.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    photo["coffee"].save(folder / "coffee_rotated.jpg", exif=exif)
    frames = [photo["flower"].rotate(angle) for angle in (0, 90)]
    frames[0].save(folder / "flower_animated.webp", save_all=True, append_images=frames[1:])
    whole = (folder / "chelsea_rgb.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("not a picture\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder for the checkpoint and the pictures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        model, pictures = folder / "random_b16_224", folder / "pictures"
        if not model.exists():
            config = find("siglip_b16_224").config
            save(
                model,
                SiglipModel(config),
                random_params(config),
                profile=custom_profile(config, pad=1),
                vocabulary=VOCABULARY,
                name="random weights of the size of siglip_b16_224",
            )
        write_pictures(pictures)
        command = ["score", "--model", model, pictures, "--labels", *LABELS, "--top", "2"]
        environment = os.environ | {"SIGLIP_JAX_HOME": str(folder / "home")}
        for run in ("first run (compiles)", "second run"):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "siglip_jax.cli.main", *command],
                env=environment,
                capture_output=True,
                text=True,
            )
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
            if run.startswith("first"):
                print(done.stdout.replace(f"{pictures}/", ""))
                print(done.stderr.replace(f"{pictures}/", ""))
            # Two of the files are bad on purpose, which is exit code 2.
            assert done.returncode == 2, done.stderr
            print(f"{run}: {seconds:.1f} s, peak memory so far {peak:,.0f} MB")


if __name__ == "__main__":
    main()
