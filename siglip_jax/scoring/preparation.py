"""From an item to what the model takes, in bounded memory."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from PIL import Image

from siglip_jax.config import NaFlexVision, Siglip
from siglip_jax.data.failures import PassingError, retrying
from siglip_jax.data.item import Item
from siglip_jax.data.stamps import item_stamp
from siglip_jax.messages import reason
from siglip_jax.models import check_grid
from siglip_jax.preprocessing import Patches, Profile, Tokenizer
from siglip_jax.preprocessing.decode import allow_pixels, cost, decoded, orientation_of
from siglip_jax.preprocessing.decode_process import Decoded
from siglip_jax.preprocessing.example import Grid, Layout, example
from siglip_jax.preprocessing.picture_cost import Road, road
from siglip_jax.preprocessing.pixels import Pixels, size_of
from siglip_jax.preprocessing.profiles import ImageProfile
from siglip_jax.regular_file import read_regular
from siglip_jax.scoring.budget import Budget
from siglip_jax.scoring.preparing import MOST, Made, Preparing
from siglip_jax.scoring.rows import Prepared

# The decoded image, and what resizing makes of it, in floats; behind transparent pixels the
# background is laid, inks are multiplied in 16 bits, and a process hands its pixels over.
_BYTES_PER_PIXEL = 16
_OF_MODE = {"CMYK": 36, "I": 20, "F": 20, "LAB": 20, "HSV": 20} | dict.fromkeys(
    ("RGBA", "LA", "PA", "RGBa", "La"), 28
)
_OF_NAFLEX = 28  # big_vision's antialias works on floats of the whole image


class Preparer:
    """Turns an item into what the towers take. Runs in many threads.

    Args:
      what: "images", "texts" or "pairs".
      config: of the model.
      profile: its preprocessing.
      tokenizer: needed for texts.
      memory: bytes for images being decoded, over all threads.
      processes: `several` are prepared in a process of the thread that asks, since threads
        share Python's lock.
      budget: makes a budget of a name and a limit.

    Attributes:
      layout: of an example of an image.
    """

    def __init__(
        self,
        what: str,
        config: Siglip,
        profile: Profile,
        tokenizer: Tokenizer | None = None,
        *,
        memory: int = 2**29,
        processes: bool = False,
        budget: Callable[[str, int], Budget] = lambda name, limit: Budget(limit),
    ) -> None:
        self.what, self.decoding = what, budget("decoding", memory)
        # Apart, so that no thread waits for room for pixels that another's file takes.
        self._files = budget("files", memory)
        self.profile, self._vision, self._tokenizer = profile, config.vision, tokenizer
        self._image, self._grid = profile.image, _grid_of(config.vision, profile.image)
        self.layout = Layout(self._image, self._grid)
        budgets = {"decoding": self.decoding, "files": self._files}
        self._preparing = (
            Preparing(config, profile, self.layout, memory, budgets) if processes else None
        )
        allow_pixels(self._image.max_pixels)

    def __call__(self, item: Item) -> Prepared:
        done = Prepared(
            item.key,
            item.text,
            error=item.error,
            stamp=item.stamp,
            passing=item.passing,
            kept=item.kept,
        )
        if item.error is not None:
            return done
        try:
            if self.what == "texts" or not isinstance(item.image, str | os.PathLike):
                return self._made(item, done)
            held = min(_file_size(item.image), self._files.limit)
            self._files.take(held)
            try:
                data = _read(item.image, self._files.limit)
                whole = Item(item.key, data, item.text, stamp=item.stamp, kept=item.kept)
                return self._made(whole, done)
            finally:
                self._files.give(held)
        except ValueError as error:
            return _in_error(done, error)

    def together(self, most: int) -> int:
        """How many to give to `several` at a time, of so many that there could be."""
        return 1 if self._preparing is None else max(1, min(MOST, most))

    def several(self, items: Sequence[Item]) -> list[Prepared]:
        """Each as alone; in a process, if there are any, what is to be decoded."""
        if self._preparing is None or self.what == "texts":
            return [self(item) for item in items]
        there = [
            item for item in items if item.error is None and isinstance(item.image, str | bytes)
        ]
        made = iter(self._preparing(there)) if there else iter(())
        asked = set(map(id, there))
        return [
            self._merged(item, next(made)) if id(item) in asked else self(item) for item in items
        ]

    def _merged(self, item: Item, made: Made) -> Prepared:
        """What a process made of an item's image, with what it was not told of the item."""
        stamp = made.stamp
        if stamp is not None and (item.text is not None or item.kept):
            whole = Item(item.key, item.image, item.text, stamp=stamp, kept=item.kept)
            stamp = item_stamp(whole)
        done = Prepared(item.key, item.text, stamp=stamp, kept=item.kept)
        try:
            ids = None if self.what == "images" else self._ids(item)
        except ValueError as error:
            return _in_error(done, error)
        done = done._replace(rotated=made.rotated)
        if made.error is not None:
            return _in_error(done, (PassingError if made.passing else ValueError)(made.error))
        image = made.example
        return done._replace(
            width=made.width,
            height=made.height,
            grid=made.grid,
            example=image if ids is None else (image, ids),
        )

    def _made(self, item: Item, done: Prepared) -> Prepared:
        # Of what cannot be decoded, too: it is not tried again before it changes.
        done = done._replace(stamp=item_stamp(item))
        try:
            ids = None if self.what == "images" else self._ids(item)
            if self.what == "texts":
                return done._replace(example=ids)
            done, image = self._decoded(item.image, done)
        except ValueError as error:
            return _in_error(done, error)
        return done._replace(example=image if ids is None else (image, ids))

    def close(self) -> None:
        """Nothing waits for room any more."""
        self.decoding.close()
        self._files.close()

    def end_processes(self) -> None:
        """Once no thread prepares any more."""
        if self._preparing is not None:
            self._preparing.close()

    def image(self, pixels: Pixels) -> Any:
        """Pixels (h, w, 3) uint8 as the image tower takes them: an array, or `Patches`."""
        return self._checked(example(pixels, self._image, self._grid))

    def _checked(self, made: Any) -> Any:
        if isinstance(self._vision, NaFlexVision):
            return check_grid(made, self._vision, bounded=self._image.bounded)
        return made

    def _ids(self, item: Item) -> Any:
        if item.text is None or self._tokenizer is None:
            raise ValueError("there is no text" if item.text is None else "there is no tokenizer")
        return self._tokenizer.encode([item.text], warn=False)[0]

    def _decoded(self, data: Any, done: Prepared) -> tuple[Prepared, Any]:
        if data is None:
            raise ValueError("there is no image")
        # Once: the lock is held meanwhile.
        found = road(data) if isinstance(data, bytes) else None
        known = _size(data, self._image, found)
        done = done._replace(rotated=known.turned)
        whole = known.height, known.width
        amount = self._per_pixel(known.mode) * whole[0] * whole[1]
        self.decoding.take(amount)
        try:
            pixels = decoded(data, self._image, found)
            made, (height, width) = example(pixels, self._image, self._grid), size_of(pixels)
            if height * width < whole[0] * whole[1]:  # a draft, perhaps rotated
                same = (height < width) == (whole[0] < whole[1])
                height, width = whole if same else whole[::-1]
            made = self._checked(made)
            return done._replace(width=width, height=height, grid=_grid(made)), made
        except ValueError as error:
            name = getattr(data, "filename", "") or "Pillow image"
            message = str(error).removeprefix("image bytes: ").removeprefix(f"{name}: ")
            raise ValueError(message) from error
        finally:
            self.decoding.give(amount)

    def _per_pixel(self, mode: str) -> int:
        floats = _OF_NAFLEX if self._image.resize == "tf_antialias" else _BYTES_PER_PIXEL
        return max(floats, _OF_MODE.get(mode, _BYTES_PER_PIXEL))


def _grid_of(vision: Any, profile: ImageProfile) -> Grid | None:
    if not isinstance(vision, NaFlexVision):
        return None
    return Grid(vision.patch, profile.max_patches or vision.posemb_grid**2)


def _grid(made: Any) -> tuple[int, int] | None:
    if not isinstance(made, Patches):
        return None
    return int(made.yidx.max()) + 1, int(made.xidx.max()) + 1


def _in_error(done: Prepared, error: ValueError) -> Prepared:
    passing = isinstance(error, PassingError)
    return done._replace(error=" ".join(str(error).split()), cause=error, passing=passing)


def _read(path: Any, most: int) -> bytes:
    try:
        return retrying("", lambda: read_regular(path, most))
    except ValueError as error:
        raise type(error)(f"{path}: cannot be read: {reason(error.__cause__ or error)}") from error


def _file_size(path: Any) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - as many as there are images
    except (OSError, ValueError):  # which reading will say
        return 0


def _size(data: Any, profile: ImageProfile, found: Road | None) -> Decoded:
    """What a header states; zeros where there is none: decoding says why."""
    if isinstance(data, Image.Image):
        turned = not profile.exif and orientation_of(data) != 1
        return Decoded(data.height, data.width, data.mode, turned)
    if isinstance(data, np.ndarray):
        sides = cast(tuple[int, ...], data.shape)
        height, width = sides[:2] if len(sides) > 1 else (0, 0)
        return Decoded(height, width, "RGBA" if sides[2:] == (4,) else "RGB")
    try:
        return cost(bytes(data), profile, found) or Decoded(0, 0, "RGB")
    except ValueError as error:
        raise ValueError(str(error).removeprefix("image bytes: ")) from error


def warn_of_rotation(count: int) -> None:
    """A warning of `count` images that are shown as they lie in their files; none of none."""
    if count:
        carry = "image carries" if count == 1 else "images carry"
        warnings.warn(
            f"{count:,} {carry} an EXIF rotation that is not applied, as in big_vision; --exif "
            "(exif of the image profile) applies it",
            stacklevel=2,
        )
