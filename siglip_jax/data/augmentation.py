"""Random changes to an image on its way into a batch."""

import dataclasses
import math
from typing import Literal, get_args

import numpy as np
from PIL import Image

from siglip_jax.preprocessing import ImageProfile, resize_image

Background = Literal["profile", "random", "either"]

_WHITE = (255, 255, 255)
_LOG_ASPECTS = (math.log(3 / 4), math.log(4 / 3))
# Rec. 601 luma, by which Pillow makes an image grey.
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What changes at random in a training image; nothing unless asked for.

    Attributes:
      flip: probability of a mirror image, left for right.
      crop: smallest and largest share of the area that is cut out before the resize,
        at an aspect ratio of 3:4 to 4:3 relative to the whole; None keeps everything.
      rotate: largest angle in degrees, either way.
      scale: smallest and largest factor by which the image is drawn.
      shift: largest distance it is moved, either way along each axis, as a share of
        the side.
      colour: strength of changes to brightness, contrast and saturation; each is
        multiplied by 1 - colour to 1 + colour.
      background: what lies behind transparent pixels, and where the image does not
        reach: "profile", the profile's colour (white if it has none), "random", a
        colour or a gradient between two, or "either", each for half of the images.

    Raises:
      ValueError: if a value is out of range.

    >>> image = Image.new("RGBA", (72, 72), (255, 0, 0, 128))
    >>> profile = ImageProfile(decode="fastdct", resize="tf_bilinear", res=64)
    >>> changes = Augmentation(flip=0.5, rotate=10, background="random")
    >>> changes.apply(image, 64, np.random.default_rng(0), profile).shape
    (64, 64, 3)
    """

    flip: float = 0.0
    crop: tuple[float, float] | None = None
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    colour: float = 0.0
    background: Background = "profile"

    def __post_init__(self) -> None:
        for name, high in (("flip", 1), ("rotate", 180), ("shift", 1), ("colour", 1)):
            value = getattr(self, name)
            if not _number(value) or not 0 <= value <= high:
                raise ValueError(
                    f"Augmentation: {name} must be a number from 0 to {high}, got {value!r}"
                )
        if self.crop is not None:
            object.__setattr__(self, "crop", _interval("crop", self.crop, 1))
        object.__setattr__(self, "scale", _interval("scale", self.scale, 10))
        if self.background not in get_args(Background):
            raise ValueError(
                "Augmentation: background must be one of "
                f"{', '.join(get_args(Background))}, got {self.background!r}"
            )

    @property
    def moves(self) -> bool:
        """Whether pixels change places other than by a flip."""
        return bool(self.crop or self.rotate or self.shift or self.scale != (1.0, 1.0))

    @property
    def changes(self) -> bool:
        """Whether anything is switched on."""
        return self.moves or bool(self.flip or self.colour or self.background != "profile")

    def apply(
        self, image: Image.Image, res: int, rng: np.random.Generator, profile: ImageProfile
    ) -> np.ndarray:
        """The changed image, (res, res, 3) uint8.

        Without `crop`, `rotate`, `scale` and `shift` the profile's resize makes it, bit
        for bit. With them one bilinear warp does, as far from antialiased as
        big_vision's resize: what shrinks more than twofold is averaged down first.

        Args:
          image: mode RGB or RGBA.
          res: side in pixels.
          rng: decides everything.
          profile: how to resize, and the colour behind transparent pixels.
        """
        if image.mode == "RGBA" and self.background == "profile" and profile.background is None:
            image = image.convert("RGB")
        flip = rng.random() < self.flip
        if self.moves:
            warped = np.asarray(_warped(image, res, self._placement(rng)))
            pixels = _laid_over(warped, self._behind(res, res, rng, profile))
        else:
            if image.mode == "RGBA":
                behind = self._behind(image.height, image.width, rng, profile)
                opaque = Image.fromarray(behind).convert("RGBA")
                image = Image.alpha_composite(opaque, image).convert("RGB")
            pixels = resize_image(np.asarray(image), res, profile)
        if flip:
            pixels = pixels[:, ::-1]
        if self.colour:
            pixels = _jittered(pixels, *(1 + self.colour * rng.uniform(-1, 1, 3)))
        return np.ascontiguousarray(pixels)

    def _placement(self, rng: np.random.Generator) -> np.ndarray:
        """(2, 3): from positions in the result to positions in the image, both 0 to 1."""
        width = height = 1.0
        left = top = 0.0
        if self.crop:
            area, stretch = rng.uniform(*self.crop), math.exp(rng.uniform(*_LOG_ASPECTS))
            width = min(1, math.sqrt(area * stretch))
            height = min(1, math.sqrt(area / stretch))
            left, top = rng.random(2) * (1 - width, 1 - height)
        angle = math.radians(rng.uniform(-self.rotate, self.rotate))
        factor = rng.uniform(*self.scale)
        moved = rng.uniform(-self.shift, self.shift, 2)
        cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
        turn = np.array([[cos, sin], [-sin, cos]]) * [[width], [height]]
        centre = np.array([left + width / 2, top + height / 2])
        return np.column_stack([turn, centre - turn @ (0.5 + moved)])

    def _behind(
        self, height: int, width: int, rng: np.random.Generator, profile: ImageProfile
    ) -> np.ndarray:
        """The background, (height, width, 3) uint8."""
        plain = self.background == "profile"
        if self.background == "either":
            plain = rng.random() < 0.5
        if plain:
            colour = np.array(profile.background or _WHITE, np.uint8)
            return np.broadcast_to(colour, (height, width, 3))
        first, second = rng.integers(0, 256, (2, 3)).astype(np.float32)
        across, down = rng.uniform(-1, 1, 2)
        if rng.random() < 0.5:
            return np.broadcast_to(first.astype(np.uint8), (height, width, 3))
        # A ramp from corner to corner, at whatever angle.
        x = np.linspace(0, across, width, dtype=np.float32)
        ramp = np.linspace(0, down, height, dtype=np.float32)[:, None] + x
        ramp -= ramp.min()
        ramp /= max(ramp.max(), 1e-6)
        return (first + ramp[..., None] * (second - first)).astype(np.uint8)


def _warped(image: Image.Image, res: int, placement: np.ndarray) -> Image.Image:
    """The image drawn by `placement`, (res, res), alpha premultiplied."""
    if image.mode == "RGB":
        image = image.convert("RGBA")
    # Premultiplied, so that the colour of transparent pixels does not bleed into edges.
    image = image.convert("RGBa")
    matrix = placement * np.array(image.size)[:, None]
    matrix[:, :2] /= res
    # How many pixels of the image a step in the result crosses, along each axis of the image.
    steps = np.maximum(np.hypot(matrix[:, 0], matrix[:, 1]).astype(int), 1)
    if steps.max() > 1:
        image = image.reduce((int(steps[0]), int(steps[1])))
        matrix /= steps[:, None]
    return image.transform(
        (res, res), Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BILINEAR
    )


def _laid_over(image: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """A premultiplied (h, w, 4) image over an opaque (h, w, 3) one."""
    through = 255 - image[..., 3:].astype(np.uint16)
    # Exact division by 255, rounded.
    shown = (through * behind + 127) // 255
    return np.minimum(shown + image[..., :3], 255).astype(np.uint8)


def _jittered(
    pixels: np.ndarray, brightness: float, contrast: float, saturation: float
) -> np.ndarray:
    """Colours moved towards grey or from it, then towards the mean, then scaled."""
    mean = float((pixels.reshape(-1, 3).mean(0) * _LUMA).sum())
    mixed = saturation * np.eye(3) + (1 - saturation) * _LUMA
    offset = np.full((3, 1), brightness * (1 - contrast) * mean)
    matrix = np.hstack([brightness * contrast * mixed, offset])
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.convert("RGB", tuple(matrix.ravel().tolist())))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _interval(name: str, value: object, high: float) -> tuple[float, float]:
    values = tuple(value) if isinstance(value, list | tuple) else ()
    if len(values) == 2 and all(map(_number, values)) and 0 < values[0] <= values[1] <= high:
        return float(values[0]), float(values[1])
    raise ValueError(
        f"Augmentation: {name} must be (low, high) above 0 and up to {high}, got {value!r}"
    )
