"""A pair as a model takes it, and batches of them at any position of an endless stream."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from siglip_jax.data.augmentation import Augmentation
from siglip_jax.data.item import Pairs
from siglip_jax.preprocessing import (
    ImageProfile,
    Patches,
    Tokenizer,
    decode_image,
    naflex_patches,
    preprocess_image,
)
from siglip_jax.preprocessing.decode import cost, open_image
from siglip_jax.preprocessing.picture_cost import road

_ALPHA, _PLAIN = ("RGBA", "LA", "PA"), ("1", "L", "P", "RGB")
# So many images drawn at random and not one readable: nothing is left to replace them by.
_TRIES = 100


class Batch(NamedTuple):
    """Examples as a model takes them; b of them, this process's share.

    Attributes:
      image: (b, res, res, 3) uint8, or for NaFlex `Patches` of arrays with a
        leading b; None where no images were asked for.
      text: (b, length) int32 token ids.
      index: (b,) int64 indices in the dataset.
      unreadable: (key, reason) of each image that another one replaces.
    """

    image: Any
    text: np.ndarray
    index: np.ndarray
    unreadable: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """From the bytes of an image file to what a model takes.

    Attributes:
      profile: how.
      patch: side of a NaFlex model's patches, None for other models.
      augmentation: random changes, if any.
    """

    profile: ImageProfile
    patch: int | None = None
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        if self.profile.max_patches is None:
            return
        if self.patch is None:
            raise ValueError("the profile is for NaFlex: pass patch, the side of its patches")
        if self.augments:
            raise ValueError("a NaFlex profile keeps aspect ratios; augmentation cannot be used")

    @property
    def augments(self) -> bool:
        return self.augmentation is not None and self.augmentation.changes

    def decoded(self, image: bytes) -> Any:
        """The image, as `finished` wants it.

        Raises:
          ValueError: if it cannot be read.
        """
        if self.augments:
            return _with_alpha(image, self.profile)
        if self.profile.max_patches is not None:
            assert self.patch is not None  # __post_init__ asks for it
            return naflex_patches(decode_image(image, self.profile), self.profile, self.patch)
        return preprocess_image(image, self.profile)

    def finished(self, image: Any, rng: np.random.Generator | None) -> Any:
        if self.augmentation is None or not self.augmentation.changes:
            return image
        # A profile without a side is NaFlex's, and those that augment draw numbers for it.
        assert self.profile.res is not None and rng is not None
        return self.augmentation.apply(image, self.profile.res, rng, self.profile)

    def stacked(self, examples: list[Any]) -> Any:
        """Examples as one array, or one `Patches` of arrays."""
        if self.profile.max_patches is not None:
            return Patches(*map(np.stack, zip(*examples, strict=True)))
        return np.stack(examples)


def _with_alpha(data: bytes, profile: ImageProfile) -> Image.Image:
    """The image in mode RGB, or RGBA if it has transparency."""
    process, refused, _ = road(data)
    if process or refused:
        whole = decode_image(data, profile)  # an error where it takes too long
        known = cost(data, profile)
        if known is None or known.mode not in _ALPHA:
            return Image.fromarray(whole)
    try:
        with open_image(data) as image:
            clear = image.mode in _PLAIN and "transparency" in image.info
            if (image.mode in _ALPHA or clear) and image.width * image.height <= profile.max_pixels:
                upright = ImageOps.exif_transpose(image) if profile.exif else image
                return upright.convert("RGBA")
    # Whatever is wrong with it, decode_image says in one line.
    except Exception:
        pass
    return Image.fromarray(decode_image(data, profile))


class Stream:
    """Batch `step` of an endless shuffled stream over the pairs, for any `step`.

    What a batch holds depends on the arguments and `step` alone. Position `p` of the
    stream is position `p % n` of epoch `p // n`, each of which is a permutation of its own;
    epochs that are no whole number of batches run into each other.

    Args:
      order: order[p] is the pair at position p.
      batch: examples over all processes; this one makes the rows of its turn.
      skip: indices of pairs whose images are known not to be readable.
      images: whether to read and prepare images at all.
    """

    def __init__(
        self,
        pairs: Pairs,
        order: Any,
        tokenizer: Tokenizer,
        preparation: Preparation,
        *,
        batch: int,
        seed: int,
        images: bool,
        skip: frozenset[int],
        process_index: int,
        process_count: int,
    ) -> None:
        self.pairs, self.order, self.tokenizer = pairs, order, tokenizer
        self.preparation, self.images, self.skip = preparation, images, skip
        self.batch, self.seed = batch, seed
        self.rows = batch // process_count
        self.first = process_index * self.rows

    def __call__(self, step: int) -> Batch:
        images, texts, indices, unreadable = [], [], [], []
        start = step * self.batch + self.first
        for position in range(start, start + self.rows):
            rng = np.random.default_rng((self.seed, position))
            index, captions, image = self._usable(self.order[position], rng, unreadable)
            # Drawn before anything that depends on the image, so that a run on cached
            # embeddings sees the texts that one on images would.
            texts.append(captions[rng.integers(len(captions))])
            indices.append(index)
            if self.images:
                images.append(self.preparation.finished(image, rng))
        return Batch(
            self.preparation.stacked(images) if self.images else None,
            # A run warns of what is cut once, not of every batch.
            self.tokenizer.encode(texts, warn=False),
            np.array(indices, np.int64),
            tuple(unreadable),
        )

    def _usable(
        self, index: int, rng: np.random.Generator, unreadable: list[tuple[str, str]]
    ) -> tuple[int, tuple[str, ...], Any]:
        """The pair at `index`, or another one if that cannot be read: index, captions, image."""
        problem = (f"image {index}", "to be skipped")
        for _ in range(_TRIES):
            if index not in self.skip:
                key = f"image {index}"
                try:
                    if not self.images:
                        return index, self.pairs.captions(index), None
                    key, data, captions = self.pairs[index]
                    return index, captions, self.preparation.decoded(data)
                except ValueError as error:
                    problem = (key, str(error))
                    unreadable.append(problem)
            index = int(rng.integers(len(self.pairs)))
        raise ValueError(
            f"of {_TRIES} images drawn at random none can be read; the last is "
            f"{problem[0]}: {problem[1]}"
        )
