"""From an item to what the model takes, in bounded memory."""

import io
import os
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from siglip_jax.config import NaFlexVision, Siglip
from siglip_jax.data.failures import PassingError, retrying
from siglip_jax.data.item import Item
from siglip_jax.data.stamps import item_stamp
from siglip_jax.messages import reason
from siglip_jax.models import check_grid
from siglip_jax.preprocessing import (
    Profile,
    Tokenizer,
    decode_image,
    naflex_patches,
    preprocess_image,
)
from siglip_jax.preprocessing.decode import allow_pixels, orientation_of
from siglip_jax.scoring.budget import Budget
from siglip_jax.scoring.rows import Prepared

# The decoded image, and what resizing makes of it, in floats.
_BYTES_PER_PIXEL = 16


class Preparer:
    """Turns an item into what the towers take. Runs in many threads.

    Args:
      what: "images", "texts" or "pairs".
      config: of the model.
      profile: its preprocessing.
      tokenizer: needed for texts.
      memory: bytes for images being decoded, over all threads.
    """

    def __init__(
        self,
        what: str,
        config: Siglip,
        profile: Profile,
        tokenizer: Tokenizer | None = None,
        *,
        memory: int = 2**29,
    ) -> None:
        self.what, self.decoding = what, Budget(memory)
        self.profile, self._vision, self._tokenizer = profile, config.vision, tokenizer
        self._image = profile.image
        allow_pixels(self._image.max_pixels)

    def __call__(self, item: Item) -> Prepared:
        done = Prepared(
            item.key, item.text, error=item.error, stamp=item.stamp, passing=item.passing
        )
        if item.error is not None:
            return done
        try:
            image, ids = None, None
            if self.what != "texts" and isinstance(item.image, str | os.PathLike):
                item = Item(item.key, _read(item.image), item.text, stamp=item.stamp)
            done = done._replace(stamp=item_stamp(item))
            if self.what != "images":
                ids = self._ids(item)
            if self.what != "texts":
                done, image = self._decoded(item.image, done)
        except ValueError as error:
            passing = isinstance(error, PassingError)
            return done._replace(error=" ".join(str(error).split()), cause=error, passing=passing)
        example = (image, ids) if self.what == "pairs" else image if ids is None else ids
        return done._replace(example=example)

    def image(self, pixels: np.ndarray) -> Any:
        """Pixels (h, w, 3) uint8 as the image tower takes them: an array, or `Patches`."""
        if isinstance(self._vision, NaFlexVision):
            count = self._image.max_patches or self._vision.posemb_grid**2
            patches = naflex_patches(pixels, self._image, self._vision.patch, count)
            return check_grid(patches, self._vision, bounded=self._image.bounded)
        return preprocess_image(pixels, self._image)

    def _ids(self, item: Item) -> Any:
        if item.text is None or self._tokenizer is None:
            raise ValueError("there is no text" if item.text is None else "there is no tokenizer")
        return self._tokenizer.encode([item.text], warn=False)[0]

    def _decoded(self, data: Any, done: Prepared) -> tuple[Prepared, Any]:
        if data is None:
            raise ValueError("there is no image")
        *whole, turned = _header(data, looks=not self._image.exif)
        done = done._replace(rotated=turned)
        amount = _BYTES_PER_PIXEL * whole[0] * whole[1]
        self.decoding.take(amount)
        try:
            pixels = decode_image(data, self._image)
            height, width = pixels.shape[:2]
            if height * width < whole[0] * whole[1]:  # a draft, perhaps rotated
                same = (height < width) == (whole[0] < whole[1])
                height, width = whole if same else whole[::-1]
            return done._replace(width=width, height=height), self.image(pixels)
        except ValueError as error:
            name = getattr(data, "filename", "") or "Pillow image"
            message = str(error).removeprefix("image bytes: ").removeprefix(f"{name}: ")
            raise ValueError(message) from error
        finally:
            self.decoding.give(amount)


def _read(path: Any) -> bytes:
    try:
        return retrying("", Path(path).read_bytes)
    except ValueError as error:
        raise type(error)(f"{path}: cannot be read: {reason(error.__cause__ or error)}") from error


def _header(data: Any, *, looks: bool) -> tuple[int, int, bool]:
    """(height, width, EXIF rotation) as a header states them; zeros where there is none.

    Then decoding says why. The rotation is only looked for where it `looks`.
    """
    if isinstance(data, Image.Image):
        return data.height, data.width, looks and orientation_of(data) != 1
    if isinstance(data, np.ndarray):
        sides = cast(tuple[int, ...], data.shape)
        return (sides[0], sides[1], False) if len(sides) > 1 else (0, 0, False)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.height, image.width, looks and orientation_of(image) != 1
    except Exception:
        return 0, 0, False


def warn_of_rotation(count: int) -> None:
    """A warning of `count` images that are shown as they lie in their files; none of none."""
    if count:
        carry = "image carries" if count == 1 else "images carry"
        warnings.warn(
            f"{count:,} {carry} an EXIF rotation that is not applied, as in big_vision; --exif "
            "(exif of the image profile) applies it",
            stacklevel=2,
        )
