"""What lower precision and draft decoding do to embeddings, to accuracy and to memory.

    python benchmarks/low_precision.py [--checkpoint NAME] [--rounds N] [--tail DEGREES]

Two models: the bundled one, on the held-out combinations of its data (as many as the tests
carry), whose accuracy is the share of drawings for which a caption of their own is the most
similar of all; and one of seeded random weights of the size of NAME, on photographs of 2000x1500
pixels (decode_speed.py) and random captions. For each way to run it:

    weights   bytes of the parameters over those of float32
    cosine    with the float32 embeddings of the same inputs: the mean, and the least
    right     accuracy (the bundled model only)
    speed     over float32, batches of images taken in turn, processor time of the process

With `--tail` kernels are drawn from Student's t with so many degrees of freedom, of the same
variance: a few weights of a channel are much larger than the rest, which sets the step of all.

"draft" is float32 with `drafted(profile)`; its cosine is that of a picture decoded in full.
Random weights say how much rounding grows in a model of that size, not how much accuracy is
lost: nothing in them has been trained to be robust, or not to be.

Results: benchmarks/RESULTS.md.
"""

import argparse
import io
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from decode_speed import photographs
from PIL import Image
from score_photographs import random_params

import siglip_jax
from siglip_jax.checkpoints import find
from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import custom_profile, drafted, preprocess_image
from siglip_jax.scoring import Scorer
from siglip_jax.weights.int8 import stored
from siglip_jax.weights.tree import flatten, nested

HELD_OUT = Path(__file__).parents[1] / "tests" / "fixtures" / "emoji_heldout.parquet"
BF16 = {"dtype": "bfloat16", "text_dtype": "bfloat16"}
WAYS = {
    "float32": Execution(weights="float32"),
    "bfloat16 matmuls of the image tower": Execution(weights="float32", dtype="bfloat16"),
    "bfloat16 weights, float32 matmuls": Execution(weights="bfloat16"),
    "bfloat16 weights and activations": Execution(weights="bfloat16", **BF16),
    "int8 weights, float32 matmuls": Execution(weights="int8", activations="float"),
    "int8 weights, bfloat16 matmuls": Execution(weights="int8", activations="float", **BF16),
    "int8 on VNNI, float32 beside it": Execution(weights="int8"),
    "int8 on VNNI, bfloat16 beside it": Execution(weights="int8", **BF16),
}


def heavy_tailed(weights: dict[str, np.ndarray], degrees: float) -> dict[str, np.ndarray]:
    """Kernels from Student's t, of the variance that they have."""
    rng = np.random.default_rng(1)
    made = dict(weights)
    for name, leaf in weights.items():
        if name.endswith("kernel"):
            values = rng.standard_t(degrees, leaf.shape).astype(np.float32)
            made[name] = values * (leaf.std() / values.std())
    return made


def cosines(z: np.ndarray, exact: np.ndarray) -> str:
    each = (z * exact).sum(axis=1)
    return f"{each.mean():.5f} {each.min():.5f}"


def row(name: str, *cells: str) -> None:
    print(f"  {name:37}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


def bundled() -> None:
    """Accuracy and cosines of the bundled model."""
    table = pyarrow.parquet.read_table(HELD_OUT)
    name = "unseen_combinations"
    captions = json.loads(table.schema.metadata[b"evaluations"])[name]["captions"]
    rows = [each for each in table.to_pylist() if each["evaluation"] == name]
    pictures = [Image.open(io.BytesIO(each["image"])) for each in rows]
    print(f"siglip_emoji: {len(pictures)} held-out drawings, {len(captions)} captions")
    row("", "weights", "image cosine", "text cosine", "right")
    whole: Any = None
    for name, execution in WAYS.items():
        model = siglip_jax.load("siglip_emoji", execution=execution)
        scorer = model.scorer(batch_size=64, text_batch_size=64)
        zimg, ztxt = scorer.embed_images(pictures), scorer.embed_texts(captions)
        size = sum(leaf.nbytes for leaf in flatten(model.params).values())
        whole = whole or (zimg, ztxt, size)
        best = (zimg @ ztxt.T).argmax(axis=1)
        hits = [i in each["right"] for i, each in zip(best, rows, strict=True)]
        row(
            name,
            f"{size / whole[2]:.3f}",
            cosines(zimg, whole[0]),
            cosines(ztxt, whole[1]),
            f"{np.mean(hits):.1%}",
        )


def random_weights(checkpoint: str, rounds: int, tail: float | None, batch: int = 4) -> None:
    """Cosines, memory and speed of a large model with random weights."""
    config = find(checkpoint).config
    profile = custom_profile(config, pad=1)
    weights = flatten(random_params(config))
    if tail is not None:
        weights = heavy_tailed(weights, tail)
    files = photographs(2 * batch, 2000, 1500)
    ids = np.random.default_rng(0).integers(2, config.text.vocab_size, (16, config.text.length))
    scorers: dict[str, Scorer] = {}
    found: dict[str, tuple[str, ...]] = {}
    exact: Any = None
    for name, execution in WAYS.items():
        kept = {}
        for key, leaf in weights.items():
            kept |= stored(key, leaf, execution.weights)
        model = SiglipModel(config, execution)
        scorer = Scorer(model, nested(kept), profile=profile, batch_size=batch)
        if exact is None:
            images = np.stack([scorer.preprocess(data) for data in files])
            draft = np.stack([preprocess_image(data, drafted(profile).image) for data in files])
        z = scorer.embed_images(images), scorer.embed_texts(ids)
        size = sum(leaf.nbytes for leaf in kept.values())
        if exact is None:
            exact, whole = z, size
            of_draft = cosines(scorer.embed_images(draft), z[0])
        found[name] = f"{size / whole:.3f}", cosines(z[0], exact[0]), cosines(z[1], exact[1])
        if rounds:
            scorers[name] = scorer
        del scorer, kept  # Without rounds one copy of the weights is held at a time.
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, scorer in scorers.items():
            start = time.process_time()
            scorer.embed_images(images[:batch])
            seconds[name].append(time.process_time() - start)
    print(f"random weights of the size of {checkpoint}: {len(files)} photographs, {len(ids)} texts")
    row("", "weights", "image cosine", "text cosine", "speed" if rounds else "")
    for name, cells in found.items():
        ratios = [a / b for a, b in zip(seconds["float32"], seconds[name], strict=True)]
        row(name, *cells, f"{statistics.median(ratios):.2f}x" if rounds else "")
    row("draft", "", of_draft)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="siglip_b16_224", help="whose size to use")
    parser.add_argument("--rounds", type=int, default=3, help="of speed; 0 takes less memory")
    parser.add_argument("--tail", type=float, help="degrees of freedom of Student's t; above 2")
    given = parser.parse_args()
    bundled()
    random_weights(given.checkpoint, given.rounds, given.tail)


if __name__ == "__main__":
    main()
