"""Peak host memory and time of converting a checkpoint of a released size.

    python benchmarks/convert_memory.py [--compare] NAME ...

Writes a big_vision `.npz` of seeded random float32 numbers, in scan form as SigLIP 2 is
released, to a temporary folder; converts it to transformers and that to a `.npz` in scan
form again, each in a process of its own; and prints how long it took and that process's
peak resident memory, beside the size of the largest tensor. Every conversion reads its
output back and compares it bit by bit; the time includes that and all digests. With
`--compare` and transformers installed, both systems also embed random inputs.

Measured on 2 cores of an AMD EPYC that had other work to do, transformers 5.23, PyTorch
2.13. The last column is the largest difference of image embeddings, of text embeddings,
and of logits relative to the largest of them:

                        GB   largest  to transformers  and back      against transformers
    siglip_b16_224      0.81    0.11  0.20 GB   10 s   0.21 GB  12 s  1.0e-07 5.2e-08 1.9e-07
    siglip_so400m14_384 3.51    0.54  0.61 GB   48 s   0.63 GB  70 s  9.7e-08 7.1e-08 3.1e-07
    siglip2_b16_naflex  1.50    0.79  0.87 GB   11 s   0.88 GB  10 s  7.8e-08 7.5e-08 8.2e-08
    siglip2_g-opt16_256 7.49    1.51  1.60 GB   64 s   1.63 GB 158 s
"""

import argparse
import math
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.checkpoints import find
from siglip_jax.weights.layout import parameter_shapes
from siglip_jax.weights.npz import write_npz

DEFAULTS = ("siglip_b16_224", "siglip_so400m14_384", "siglip2_b16_naflex")


def write(name: str, path: Path) -> None:
    """A checkpoint of seeded tensors, made one at a time."""
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(find(name).config, scan_image=True, scan_text=True)
    write_npz(path, ((key, _tensor(rng, key, shape)) for key, shape in shapes.items()))


def _tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    # Sizes that keep activations in a trained model's range.
    fan_in = math.prod(shape[-4:-1]) if name.endswith("kernel") else 16
    values = rng.standard_normal(shape, np.float32)
    values *= np.float32(1 / math.sqrt(max(fan_in, 1)))
    return values + np.float32(1) if name.endswith("scale") else values


def convert(source: Path, target: Path, to: str, **options: Any) -> tuple[float, int, bool]:
    """Seconds, peak bytes, and whether every bit was kept."""
    from siglip_jax.converters import convert

    start = time.perf_counter()
    record = convert(source, target, to=to, **options)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts kilobytes
    return seconds, peak, record.exact and record.verified


def compare(name: str, npz: Path, folder: Path) -> tuple[float, float, float]:
    """The largest difference of image embeddings, text embeddings and logits (relative)."""
    import torch
    import transformers

    import siglip_jax
    from siglip_jax.models import Patches

    config = find(name).config
    rng = np.random.default_rng(1)
    ids = rng.integers(0, config.text.vocab_size, (2, config.text.length)).astype(np.int32)
    if config.naflex:
        side = config.vision.posemb_grid
        y, x = (a.ravel().astype(np.int32) for a in np.mgrid[:side, :side])
        pixels = rng.uniform(-1, 1, (2, side * side, config.vision.patch**2 * 3))
        images = Patches(
            pixels.astype(np.float32), *(np.stack([a, a]) for a in (np.ones_like(y), y, x))
        )
        theirs = {
            "pixel_values": torch.tensor(images.patches),
            "pixel_attention_mask": torch.ones(images.type.shape, dtype=torch.int32),
            "spatial_shapes": torch.tensor([[side, side]] * 2),
        }
    else:
        res = config.vision.res
        images = rng.uniform(-1, 1, (2, res, res, 3)).astype(np.float32)
        theirs = {"pixel_values": torch.tensor(images).permute(0, 3, 1, 2)}
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model(input_ids=torch.tensor(ids).long(), **theirs)
    ours = siglip_jax.load(npz)
    zimg, ztxt, values = ours.model.apply({"params": ours.params}, images, ids)
    logits = zimg @ ztxt.T * values["t"] + values["b"]
    got = (out.image_embeds, out.text_embeds, out.logits_per_image)
    differences = [
        float(np.abs(np.asarray(a) - b.numpy()).max())
        for a, b in zip((zimg, ztxt, logits), got, strict=True)
    ]
    return differences[0], differences[1], differences[2] / float(np.abs(logits).max())


def in_a_process(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls in a fresh process: on Linux one begins with the peak of its parent."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **options).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", default=DEFAULTS, metavar="NAME")
    parser.add_argument("--compare", action="store_true", help="run transformers as well")
    args = parser.parse_args()
    for name in args.names:
        shapes = parameter_shapes(find(name).config, scan_image=True, scan_text=True)
        sizes = [4 * math.prod(shape) for shape in shapes.values()]
        print(f"{name}: {sum(sizes) / 1e9:.2f} GB, largest {max(sizes) / 1e9:.2f} GB", flush=True)
        with tempfile.TemporaryDirectory() as parent:
            # Named as released, so that its architecture is known.
            npz, folder = Path(parent) / find(name).file, Path(parent) / "transformers"
            in_a_process(write, name, npz)
            for source, target, to, options in (
                (npz, folder, "transformers", {}),
                (folder, Path(parent) / "back.npz", "npz", {"scan_image": True, "scan_text": True}),
            ):
                seconds, peak, exact = in_a_process(convert, source, target, to, **options)
                kept = "every bit" if exact else "NOT every bit"
                print(f"  to {to:13} {peak / 1e9:.2f} GB {seconds:4.0f} s  {kept}", flush=True)
            if args.compare:
                image, text, logits = in_a_process(compare, name, npz, folder)
                print(f"  against transformers: {image:.1e} {text:.1e} {logits:.1e}", flush=True)


if __name__ == "__main__":
    main()
