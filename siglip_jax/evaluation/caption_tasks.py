"""Tasks of images with captions: retrieval, retrieval in many languages, the right caption."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from siglip_jax.evaluation.choices import caption_choice
from siglip_jax.evaluation.languages import mean_over, recall_by_language
from siglip_jax.evaluation.retrieval import recall
from siglip_jax.evaluation.task import Encode, Images, Measured
from siglip_jax.messages import counted

Captions = Sequence[Sequence[str]]


class Retrieval:
    """Recall at 1, 5 and 10, of captions for an image and images for a caption: `recall`.

    Args:
      captions: of each image.

    Raises:
      ValueError: if there is no image, or an image has no caption.

    >>> z = np.eye(2, dtype=np.float32)
    >>> Retrieval([["a"], ["b"]]).measure(Images(z, np.arange(2)), lambda texts: z).facts
    {'images': 2, 'texts': 2}
    """

    def __init__(self, captions: Captions) -> None:
        self._captions = _checked(captions)

    @property
    def text_count(self) -> int:
        return sum(map(len, self._captions))

    def measure(self, images: Images, encode: Encode, mesh: Mesh | None = None) -> Measured:
        texts, owner = _texts(self._captions, images.good)
        metrics = recall(images.zimg, encode(texts), owner, mesh=mesh)
        return Measured(metrics, {"images": len(images.good), "texts": len(texts)})


class Multilingual:
    """Recall in each language, and their mean, in which every language weighs the same.

    Args:
      captions: of each image.
      languages: of each image the language of each caption, or one for all of them.

    Raises:
      ValueError: as `Retrieval`; if captions and languages of an image do not go together.

    >>> task = Multilingual([["a dog", "ein Hund"]], [["en", "de"]])
    >>> z = np.ones((2, 1), np.float32)
    >>> list(task.measure(Images(z[:1], np.arange(1)), lambda texts: z).facts["languages"])
    ['en', 'de']
    """

    def __init__(self, captions: Captions, languages: Captions) -> None:
        self._captions = _checked(captions)
        if len(captions) != len(languages):
            raise ValueError(
                f"there are {len(captions):,} images with captions, and {len(languages):,} with "
                "languages"
            )
        self._languages: list[list[str]] = []
        for number, (own, spoken) in enumerate(zip(captions, languages, strict=True)):
            if len(spoken) not in (1, len(own)):
                raise ValueError(
                    f"image {number} has {counted(len(own), 'caption')} and "
                    f"{counted(len(spoken), 'language')}; give one for each, or one for all"
                )
            self._languages.append(list(spoken) * (len(own) if len(spoken) == 1 else 1))

    @property
    def text_count(self) -> int:
        return sum(map(len, self._captions))

    def measure(self, images: Images, encode: Encode, mesh: Mesh | None = None) -> Measured:
        texts, owner = _texts(self._captions, images.good)
        languages, _ = _texts(self._languages, images.good)
        found = recall_by_language(images.zimg, encode(texts), owner, languages, mesh=mesh)
        parts: dict[str, Any] = {}
        for language, metrics in found.items():
            own = [row for row, spoken in zip(owner, languages, strict=True) if spoken == language]
            parts[language] = {"images": len(set(own)), "texts": len(own), "metrics": metrics}
        facts = {"images": len(images.good), "texts": len(texts), "languages": parts}
        return Measured(mean_over(found), facts)


class CaptionChoice:
    """How often the right one of several captions is the nearest: `caption_choice`.

    Args:
      captions: of each image, the right one first.
      groups: of each image the name of its group, where several images share their captions as
        in WinoGround; then each image's first caption is its own and wrong for the others, and
        further ones are wrong for all. Default: each image is a group.

    Raises:
      ValueError: as `Retrieval`; if a group has but one image and one caption, or there is not
        a group for each image.

    >>> task = CaptionChoice([["a dog on a cat", "a cat on a dog"]])
    >>> z = np.eye(2, dtype=np.float32)
    >>> task.measure(Images(z[:1], np.arange(1)), lambda texts: z).metrics
    {'text_accuracy': 1.0, 'tied_groups': 0.0}
    """

    def __init__(self, captions: Captions, groups: Sequence[str] | None = None) -> None:
        captions = _checked(captions)
        if groups is not None and len(groups) != len(captions):
            raise ValueError(f"there are {len(captions):,} images, and {len(groups):,} groups")
        names = [str(number) for number in range(len(captions))] if groups is None else groups
        self._groups: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            self._groups.setdefault(name, []).append(number)
        self._texts: dict[str, list[str]] = {}
        for name, images in self._groups.items():
            first = [captions[number][0] for number in images]
            others = (text for number in images for text in captions[number][1:])
            twice = len(set(first)) < len(first)
            self._texts[name] = first + list(dict.fromkeys(t for t in others if t not in first))
            what = f"group {name!r}" if groups is not None else f"image {name}"
            if twice:
                raise ValueError(f"{what}: two images have the same first caption")
            if len(self._texts[name]) == len(images) == 1:
                raise ValueError(f"{what} has one caption alone, so nothing to choose from")

    @property
    def text_count(self) -> int:
        return sum(map(len, self._texts.values()))

    def measure(self, images: Images, encode: Encode, mesh: Mesh | None = None) -> Measured:
        rows = {int(number): row for row, number in enumerate(images.good)}
        # A group of which an image cannot be read is another question.
        whole = [name for name, own in self._groups.items() if all(n in rows for n in own)]
        if not whole:
            raise ValueError("no group of images can be read as a whole")
        zimg = images.zimg[[rows[n] for name in whole for n in self._groups[name]]]
        texts, text_of = _texts([self._texts[name] for name in whole], np.arange(len(whole)))
        image_of = [g for g, name in enumerate(whole) for _ in self._groups[name]]
        metrics = caption_choice(zimg, encode(texts), image_of, text_of)
        facts = {"images": len(zimg), "texts": len(texts), "groups": len(whole)}
        return Measured(metrics, facts | {"groups_left_out": len(self._groups) - len(whole)})


def _checked(captions: Captions) -> Captions:
    if not len(captions):
        raise ValueError("there is no image")
    bare = [number for number, own in enumerate(captions) if not len(own)]
    if bare:
        raise ValueError(
            f"{len(bare):,} of {len(captions):,} images have no caption, the first is number "
            f"{bare[0]}"
        )
    return captions


def _texts(of_each: Captions, good: np.ndarray) -> tuple[list[str], list[int]]:
    """The texts of the images `good`, and of each the row of its image."""
    own = [of_each[int(number)] for number in good]
    texts = [text for each in own for text in each]
    return texts, [row for row, each in enumerate(own) for _ in each]
