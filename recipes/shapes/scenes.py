"""Scenes of coloured shapes, with the mask of each: data on which a heat map can be wrong.

An image shows two things that never touch, or one; a caption names one of them. Which pairs of
things training shows and which it does not is drawn by lot once, so that all scripts agree.
"""

import dataclasses
import itertools
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64
COLORS = {
    "red": (215, 40, 40),
    "green": (40, 150, 60),
    "blue": (40, 80, 210),
    "yellow": (240, 200, 30),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "ring", "triangle", "cross")
THINGS = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
HELD_OUT_PAIRS = 30
_SEED = 2026
_FINE = 4  # pixels of the drawing in one of the image
_RADII = (10.5, 12.5)


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image of one thing or two.

    Attributes:
      image: (64, 64, 3) uint8.
      things: such as ("red circle", "blue cross").
      masks: (things, 64, 64) bool, where each of them is; a ring with its hole.
    """

    image: np.ndarray
    things: tuple[str, ...]
    masks: np.ndarray

    @property
    def captions(self) -> tuple[str, ...]:
        """Of each thing one."""
        return tuple(map(caption, self.things))


def caption(thing: str) -> str:
    """What a caption says of a thing.

    >>> caption("red circle")
    'a red circle'
    """
    return f"a {thing}"


def held_out_pairs() -> frozenset[tuple[str, str]]:
    """Pairs of things, in the order of `THINGS`, that training never shows together.

    >>> len(held_out_pairs()), len(training_pairs())
    (30, 160)
    """
    pairs = list(itertools.combinations(THINGS, 2))
    return frozenset(random.Random(_SEED).sample(pairs, HELD_OUT_PAIRS))


def training_pairs() -> tuple[tuple[str, str], ...]:
    """All other pairs."""
    held = held_out_pairs()
    return tuple(pair for pair in itertools.combinations(THINGS, 2) if pair not in held)


def scenes(groups: "Sequence[tuple[str, ...]]", count: int, seed: int) -> "list[Scene]":
    """`count` scenes of `groups` of things, in turn; the same seed gives the same pixels.

    >>> one = scenes([("red circle", "blue cross")], 1, seed=0)[0]
    >>> sorted(one.things), one.masks.any(axis=(1, 2)).tolist()
    (['blue cross', 'red circle'], [True, True])
    """
    lot = random.Random(seed)
    return [_scene(group, lot) for group in itertools.islice(itertools.cycle(groups), count)]


def _scene(group: tuple[str, ...], lot: random.Random) -> Scene:
    things = group if lot.random() < 0.5 else group[::-1]
    radii = [lot.uniform(*_RADII) for _ in things]
    while True:
        places = [[lot.uniform(r, SIDE - r) for _ in range(2)] for r in radii]
        # Two at most.
        if np.hypot(*np.subtract(places[0], places[-1])) > sum(radii) + 2 or len(places) == 1:
            break
    grey = lot.uniform(215, 245)
    background = tuple(round(min(grey + lot.uniform(-8, 8), 255)) for _ in range(3))
    image = Image.new("RGB", (SIDE * _FINE,) * 2, background)
    masks = []
    for thing, (x, y), radius in zip(things, places, radii, strict=True):
        color, shape = thing.split()
        shade = tuple(round(min(max(c + lot.uniform(-15, 15), 0), 255)) for c in COLORS[color])
        points = [(px * _FINE, py * _FINE) for px, py in _outline(shape, x, y, radius)]
        ImageDraw.Draw(image).polygon(points, fill=shade)
        if shape == "ring":
            hole = [(px * _FINE, py * _FINE) for px, py in _outline(shape, x, y, 0.55 * radius)]
            ImageDraw.Draw(image).polygon(hole, fill=background)
        mask = Image.new("L", image.size)
        ImageDraw.Draw(mask).polygon(points, fill=255)
        masks.append(np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX)) > 127)
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return Scene(np.asarray(small), things, np.stack(masks))


def _outline(shape: str, x: float, y: float, radius: float) -> "list[tuple[float, float]]":
    """The corners of a shape within `radius` of (x, y)."""
    if shape in ("circle", "ring"):
        turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        corners = [(np.sin(turn), np.cos(turn)) for turn in turns]
    elif shape == "triangle":
        corners = [(np.sin(2 * np.pi * k / 3), np.cos(2 * np.pi * k / 3)) for k in range(3)]
    else:
        arm, far = 0.3, 0.95
        side = [(-arm, far), (arm, far), (arm, arm)]
        corners = [(dx, dy) for dx, dy in side]
        for _ in range(3):  # a quarter turn each
            side = [(dy, -dx) for dx, dy in side]
            corners += side
    return [(x + radius * dx, y - radius * dy) for dx, dy in corners]
