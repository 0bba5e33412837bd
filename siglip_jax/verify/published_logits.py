"""Logits that others published for released checkpoints, and what it takes to repeat them.

Each `Published` is one table of numbers with the images, the texts and the preprocessing
that they were computed with. Only the NaFlex circles can be drawn; everything else needs
image files, which `siglip-jax verify MODEL IMAGES` takes.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from siglip_jax.checkpoints import Checkpoint
from siglip_jax.preprocessing.profiles import Decode, Profile, ProfileName, profile_for
from siglip_jax.verify import circles, notebooks


class Scale(NamedTuple):
    """Temperature `exp(t)` and bias `b` as big_vision's notebooks print them."""

    temperature: float | None
    bias: float


# The bias is printed in full, the temperature to one decimal.
SCALES = {
    "siglip_l16_384": Scale(118.2, -12.661874771118164),
    "siglip_b16_256_i18n": Scale(None, -12.885268211364746),
    "siglip2_so400m16_256": Scale(109.9, -15.932409286499023),
}
TEMPERATURE_TOLERANCE = 0.05 + 1e-6
BIAS_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """One published table of logits.

    Attributes:
      name: of the table; also of the folder in which lists are looked for.
      source: who published it and where.
      profile: the preprocessing it was computed with.
      decode: how its JPEG files were decoded, where not as the profile says.
      tolerance: largest difference that counts as the same.
      logits: rows are images, columns texts.
      with_bias: whether `b` is in the numbers.
      urls: file names of the images, in the order of rows, to where they are from.
      texts: in the order of columns.
      lists: instead of `urls` and `texts`: what the user must list, in order, in
        `FOLDER/NAME/pictures.txt` and `FOLDER/NAME/texts.txt`.
      drawn: whether the images are `circles.pictures`.
    """

    name: str
    source: str
    profile: ProfileName
    decode: Decode | None = None
    tolerance: float
    logits: tuple[tuple[float, ...], ...]
    with_bias: bool = True
    urls: dict[str, str] = dataclasses.field(default_factory=dict)
    texts: tuple[str, ...] = ()
    lists: str | None = None
    drawn: bool = False

    def profile_of(self, checkpoint: Checkpoint) -> Profile:
        """The preprocessing, for one checkpoint."""
        profile = profile_for(checkpoint, self.profile)
        if self.decode is None:
            return profile
        image = dataclasses.replace(profile.image, decode=self.decode)
        return dataclasses.replace(profile, image=image)

    def inputs(self, folder: Path | None) -> "PublishedInputs":
        """Images and texts, as far as they are here.

        Raises:
          ValueError: if a list in `folder` cannot be read or has another length.
        """
        if self.drawn:
            return PublishedInputs(circles.pictures(), self.texts, ())
        if self.lists is None:
            files = {name: folder / name for name in self.urls} if folder else {}
            missing = [
                f"{name} ({url})"
                for name, url in self.urls.items()
                if name not in files or not files[name].is_file()
            ]
            return PublishedInputs(files, self.texts, tuple(missing))
        here = folder / self.name if folder else None
        if here is None or not here.is_dir():
            where = (
                f"{self.name}/pictures.txt, the file names of {len(self.logits)} images, and "
                f"{self.name}/texts.txt, {len(self.logits[0])} texts, one a line: {self.lists}"
            )
            return PublishedInputs({}, (), (where,))
        names = _lines(here / "pictures.txt", len(self.logits), "pictures")
        texts = _lines(here / "texts.txt", len(self.logits[0]), "texts")
        missing = [f"{self.name}/{name}" for name in names if not (here / name).is_file()]
        return PublishedInputs({name: here / name for name in names}, tuple(texts), tuple(missing))


class PublishedInputs(NamedTuple):
    """Name to file or pixels; texts; what is missing, in words, if something is."""

    pictures: Mapping[str, Path | np.ndarray]
    texts: tuple[str, ...]
    missing: tuple[str, ...]


def _lines(file: Path, count: int, what: str) -> list[str]:
    try:
        lines = [line for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read as a list of {what}: {error}") from error
    if len(lines) != count:
        raise ValueError(f"{file}: expected {count} {what}, one a line, got {len(lines)}")
    return lines


_APPLES = "https://cdn.openai.com/multimodal-neurons/assets/apple"
# Rows: an apple with a label that says iPod, a plain apple. Columns: the texts below.
_APPLE_LOGITS = {
    "siglip_b16_224": ((-2.9621, -2.1672), (-0.2713, 0.2910)),
    "siglip_b16_256": ((-3.1146, -1.9894), (-0.7312, 0.6387)),
    "siglip_b16_384": ((-2.8098, -2.1891), (-0.4242, 0.4102)),
    "siglip_b16_512": ((-2.7899, -2.2668), (-0.4295, -0.0735)),
    "siglip_l16_256": ((-1.5827, -0.5801), (-0.9153, 0.1363)),
    "siglip_l16_384": ((-2.1523, -0.2899), (-0.2959, 0.7884)),
    "siglip_so400m14_384": ((-1.2441, -0.6649), (-0.7060, 0.7374)),
    "siglip_so400m14_224": ((-1.0864916, 1.1704235), (-0.71784306, 1.4354687)),
    "siglip_b16_256_i18n": ((-0.9064, 0.1073), (-0.0299, 0.5304)),
    "siglip_so400m16_256_i18n": ((-1.9432535, -0.05433846), (0.6222029, 2.2883186)),
}
_CATS = "http://images.cocodataset.org/val2017/000000039769.jpg"


def published_for(checkpoint: Checkpoint | None) -> tuple[Published, ...]:
    """All tables published for a checkpoint.

    >>> from siglip_jax.checkpoints import find
    >>> [table.name for table in published_for(find("siglip_b16_224"))]
    ['apples', 'two_cats']
    """
    if checkpoint is None:
        return ()
    tables = []
    if logits := circles.LOGITS_PER_TEXT.get(checkpoint.name):
        tables.append(
            Published(
                name="circles",
                source="transformers, tests/models/siglip2: circles that are drawn",
                profile="transformers",
                tolerance=1e-3,
                logits=tuple(zip(*logits, strict=True)),
                texts=circles.TEXTS,
                drawn=True,
            )
        )
    if logits := _APPLE_LOGITS.get(checkpoint.name):
        tables.append(
            Published(
                name="apples",
                source="transformers, convert_siglip_to_hf.py: big_vision's logits",
                profile="big_vision",
                # The pixels behind these are from big_vision's notebook, which uses Pillow.
                decode="pillow",
                # The converter asks for 1e-4 on given pixels and prints four decimals.
                tolerance=1e-3,
                logits=logits,
                urls={name: f"{_APPLES}/{name}" for name in ("apple-ipod.jpg", "apple-blank.jpg")},
                texts=("an apple", "a picture of an apple"),
            )
        )
    if checkpoint.name == "siglip_b16_224":
        tables.append(
            Published(
                name="two_cats",
                source="transformers, tests/models/siglip: an image of COCO",
                profile="transformers",
                tolerance=1e-3,
                logits=((-0.7567, -10.3354),),
                urls={_CATS.rpartition("/")[2]: _CATS},
                texts=("a photo of 2 cats", "a photo of 2 dogs"),
            )
        )
    for name, row in notebooks.TABLES.items():
        if row.checkpoint == checkpoint.name:
            tables.append(
                Published(
                    name=name,
                    source=f"big_vision, {row.cell}: its saved output",
                    profile="big_vision",
                    decode="pillow",
                    # Numbers up to 32 that are 118 times a cosine: float32 leaves 1e-4.
                    tolerance=1e-3,
                    logits=row.logits(),
                    with_bias=False,
                    lists=f"those of {row.cell}, in its order{row.note}",
                )
            )
    return tuple(tables)
