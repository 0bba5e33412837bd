"""Measures methods of explanation on scenes whose masks are known.

    python recipes/shapes/measure.py runs/shapes/model

Two games on pairs of things that training never shows together, for both captions of an image:

* pointing: the peak of a caption's map lies in a patch that shows the named thing, at least a
  quarter of it. Of patches drawn by lot few do.
* deletion: patches go in the order of the map, the highest first; the area under the mean curve
  of the score, scaled from 0 (all gone) to 1 (none gone). The lower the better; below 0 where an
  image without what is named scores lower than an empty one. Curves are not scaled one by one:
  where whole and empty images score nearly the same, a single area would outweigh all others.
"""

import argparse
from collections import defaultdict
from typing import Any

import numpy as np
from scenes import THINGS, Scene, caption, held_out_pairs, scenes

import siglip_jax
from siglip_jax.explain import METHODS, Deletion, deletion

SEED = 7
IMAGES = 120
_SHOWN = 0.25


def hit(scene: Scene, thing: int, peak: tuple[int, int], patch: int) -> bool:
    """Whether a patch shows a thing."""
    row, column = (patch * place for place in peak)
    return bool(scene.masks[thing][row : row + patch, column : column + patch].mean() >= _SHOWN)


def measure(
    scorer: siglip_jax.Scorer, made: list[Scene], methods: "tuple[str, ...]" = METHODS
) -> dict[str, dict[str, float]]:
    """For each method, and for patches by lot, the share of hits and the area."""
    lot = np.random.default_rng(SEED)
    found: Any = defaultdict(lambda: defaultdict(list))
    for scene in made:
        labels = list(scene.captions)
        maps = {m: scorer.explain(scene.image, labels, method=m).maps for m in methods}
        maps["by lot"] = lot.random(next(iter(maps.values())).shape)
        for method, heats in maps.items():
            for thing, heat in enumerate(heats):
                peak = np.unravel_index(int(heat.argmax()), heat.shape)
                patch = scene.image.shape[0] // heat.shape[0]
                found[method]["pointing"].append(hit(scene, thing, peak, patch))
                curve = deletion(scorer, scene.image, labels[thing], heat)
                found[method]["curves"].append(curve)
    return {
        method: {
            "pointing": float(np.mean(of_method["pointing"])),
            "deletion": mean_curve(of_method["curves"]).area,
        }
        for method, of_method in found.items()
    }


def mean_curve(curves: list[Deletion]) -> Deletion:
    """The mean of curves over the same grid."""
    return Deletion(
        shares=curves[0].shares, logits=np.mean([curve.logits for curve in curves], axis=0)
    )


def both_right(scorer: siglip_jax.Scorer, made: list[Scene]) -> float:
    """Share of images of which the two best of all captions are the two right ones."""
    captions = [caption(thing) for thing in THINGS]
    scores = scorer.score([scene.image for scene in made], captions)
    best = [{captions[column] for column in row} for row in scores.ranking(2)]
    return float(np.mean([row == set(s.captions) for row, s in zip(best, made, strict=True)]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder that siglip-jax train wrote")
    parser.add_argument("--images", type=int, default=IMAGES, help="how many scenes")
    given = parser.parse_args()
    scorer = siglip_jax.load(given.model).scorer(batch_size=17, text_batch_size=2)
    made = scenes(sorted(held_out_pairs()), given.images, SEED)
    print(f"both captions first of {len(THINGS)}: {both_right(scorer, made):.1%} of {len(made)}")
    print(f"{'':22}{'pointing':>10}{'deletion':>10}")
    for method, numbers in measure(scorer, made).items():
        print(f"{method:22}{numbers['pointing']:10.3f}{numbers['deletion']:10.3f}")


if __name__ == "__main__":
    main()
