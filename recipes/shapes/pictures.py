"""Draws the pictures of docs/seeing_why.md with the fixture of the tests.

python recipes/shapes/pictures.py
"""

from pathlib import Path

from fixture import FIXTURE
from matplotlib.figure import Figure
from measure import SEED
from PIL import Image
from scenes import held_out_pairs, scenes

import siglip_jax
from siglip_jax.explain import METHODS
from siglip_jax.explain.drawing import show_map
from siglip_jax.explain.explanation import SIGNED

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SHOWN = 3


def main() -> None:
    """The command line."""
    scorer = siglip_jax.load(FIXTURE).scorer(batch_size=1, text_batch_size=1)
    made = scenes(sorted(held_out_pairs()), SHOWN, SEED)
    figure = Figure(figsize=(9, 2 * SHOWN * 1.75), layout="constrained")
    cells = figure.subplots(2 * SHOWN, 1 + len(METHODS)).reshape(SHOWN, 2, -1)
    for scene, rows in zip(made, cells, strict=True):
        for label, row in zip(scene.captions, rows, strict=True):
            row[0].imshow(scene.image)
            row[0].set_title(label, fontsize=9)
            for axes, method in zip(row[1:], METHODS, strict=True):
                found = scorer.explain(scene.image, [label], method=method)
                show_map(axes, found.pixels, found.maps[0], signed=method in SIGNED)
                axes.set_title(method, fontsize=9)
            for axes in row:
                axes.set_axis_off()
    figure.savefig(IMAGES / "seeing_why_methods.png", dpi=70)
    whole = scorer.explain(made[-1].image, made[-1].captions)
    whole.figure().savefig(IMAGES / "seeing_why.png", dpi=70)
    for name in ("seeing_why_methods.png", "seeing_why.png"):
        # In 256 colours a file is a third of the size.
        image = Image.open(IMAGES / name).convert("RGB")
        image.quantize(256, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main()
