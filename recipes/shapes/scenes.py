"""Scenes of two coloured shapes, with the mask of each: data on which a heat map can be wrong.

An image shows two things that never touch; a caption names one of them. Which pairs of things
training shows and which it does not is drawn by lot once, so that all scripts agree.
"""

import dataclasses
import itertools
import random

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64
COLORS = {
    "red": (215, 40, 40),
    "green": (40, 150, 60),
    "blue": (40, 80, 210),
    "yellow": (240, 200, 30),
    "purple": (140, 50, 170),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "cross", "star")
THINGS = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
HELD_OUT_PAIRS = 60
_SEED = 2026
_FINE = 4  # pixels of the drawing in one of the image
_RADII = (9, 13)


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image of two things.

    Attributes:
      image: (64, 64, 3) uint8.
      things: such as ("red circle", "blue star").
      masks: (2, 64, 64) bool, where each of them is.
    """

    image: np.ndarray
    things: tuple[str, str]
    masks: np.ndarray

    @property
    def captions(self) -> tuple[str, str]:
        """Of each thing one."""
        return caption(self.things[0]), caption(self.things[1])


def caption(thing: str) -> str:
    """What a caption says of a thing.

    >>> caption("red circle")
    'a red circle'
    """
    return f"a {thing}"


def held_out_pairs() -> frozenset[tuple[str, str]]:
    """Pairs of things, in the order of `THINGS`, that training never shows together.

    >>> len(held_out_pairs()), len(training_pairs())
    (60, 375)
    """
    pairs = list(itertools.combinations(THINGS, 2))
    return frozenset(random.Random(_SEED).sample(pairs, HELD_OUT_PAIRS))


def training_pairs() -> tuple[tuple[str, str], ...]:
    """All other pairs."""
    held = held_out_pairs()
    return tuple(pair for pair in itertools.combinations(THINGS, 2) if pair not in held)


def scenes(pairs: "list[tuple[str, str]]", count: int, seed: int) -> "list[Scene]":
    """`count` scenes of `pairs`, in turn; the same seed gives the same pixels.

    >>> one = scenes([("red circle", "blue star")], 1, seed=0)[0]
    >>> sorted(one.things), one.masks.any(axis=(1, 2)).tolist()
    (['blue star', 'red circle'], [True, True])
    """
    lot = random.Random(seed)
    return [_scene(pair, lot) for pair in itertools.islice(itertools.cycle(pairs), count)]


def _scene(pair: tuple[str, str], lot: random.Random) -> Scene:
    things = pair if lot.random() < 0.5 else (pair[1], pair[0])
    radii = [lot.uniform(*_RADII) for _ in things]
    while True:
        places = [[lot.uniform(r, SIDE - r) for _ in range(2)] for r in radii]
        if np.hypot(*np.subtract(*places)) > sum(radii) + 2:
            break
    grey = lot.uniform(150, 250)
    background = tuple(round(min(grey + lot.uniform(-12, 12), 255)) for _ in range(3))
    image = Image.new("RGB", (SIDE * _FINE,) * 2, background)
    masks = []
    for thing, (x, y), radius in zip(things, places, radii, strict=True):
        color, shape = thing.split()
        shade = tuple(round(min(max(c + lot.uniform(-15, 15), 0), 255)) for c in COLORS[color])
        outline = _outline(shape, x, y, radius, lot.uniform(-0.3, 0.3))
        points = [(px * _FINE, py * _FINE) for px, py in outline]
        ImageDraw.Draw(image).polygon(points, fill=shade)
        mask = Image.new("L", image.size)
        ImageDraw.Draw(mask).polygon(points, fill=255)
        masks.append(np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX)) > 127)
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return Scene(np.asarray(small), things, np.stack(masks))


def _outline(
    shape: str, x: float, y: float, radius: float, turn: float
) -> "list[tuple[float, float]]":
    """The corners of a shape within `radius` of (x, y)."""
    corners: list[tuple[float, float]]  # radius and angle, from straight up
    if shape == "circle":
        corners = [(1.0, a) for a in np.linspace(0, 2 * np.pi, 48, endpoint=False)]
    elif shape == "square":
        corners = [(1.0, np.pi * (0.25 + 0.5 * k)) for k in range(4)]
    elif shape == "triangle":
        corners = [(1.0, 2 * np.pi * k / 3) for k in range(3)]
    elif shape == "star":
        corners = [(1.0 if k % 2 == 0 else 0.45, np.pi * k / 5) for k in range(10)]
    else:
        arm = 0.32
        far, near = np.hypot(1.0, arm), np.hypot(arm, arm)
        spread = np.arctan2(arm, 1.0)
        corners = []
        for k in range(4):
            side = np.pi / 2 * k
            corners += [(1.0, side - spread), (1.0, side + spread)]
            corners.append((near / far, side + np.pi / 4))
    return [
        (x + radius * r * np.sin(a + turn), y - radius * r * np.cos(a + turn)) for r, a in corners
    ]
