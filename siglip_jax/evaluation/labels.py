"""From what is said of images to indices of classes."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from siglip_jax.messages import counted, suggestions


def class_labels(
    captions: Sequence[Sequence[str]],
    classes: Sequence[str] | None = None,
    *,
    several: bool = False,
    source: str = "the classes",
) -> tuple[list[str], np.ndarray]:
    """The classes, and the indices (n, most) of those that each image is of, -1 for no further.

    Args:
      captions: of each image, each the name of a class; with classes that are given, all of
        them may be indices into these, from 0, instead.
      classes: default: the different captions, in the order in which they first occur.
      several: every caption of an image is a class of it, not the first alone.
      source: what messages call the classes.

    Raises:
      ValueError: if a class is named twice and an image is of it by name, an image has no
        caption or is of a class that is not there, or there is one class alone.

    >>> class_labels([["cat"], ["dog", "cat"], ["cat"]], several=True)
    (['cat', 'dog'], array([[ 0, -1],
           [ 1,  0],
           [ 0, -1]]))
    """
    own = [list(dict.fromkeys(each if several else each[:1])) for each in captions]
    bare = [number for number, each in enumerate(own) if not each]
    if bare or not own:
        what = (
            f"{len(bare):,} of {len(own):,} images have no caption, the first is number {bare[0]}"
        )
        raise ValueError(what if bare else "there is no image")
    names = list(dict.fromkeys(name for each in own for name in each))
    index: dict[str, int] = {}
    if classes is None:
        classes = names
    elif not set(names) <= set(classes) and all(map(_is_index, names)):
        index = {name: int(name) for name in names}
        beyond = [name for name in names if index[name] >= len(classes)]
        if beyond:
            raise ValueError(
                f"{source}: there are {counted(len(classes), 'class', 'classes')}, and images of "
                f"class {beyond[0]}; indices are from 0"
            )
    if not index:
        twice = [name for name, n in Counter(classes).items() if n > 1 and name in set(names)]
        if twice:
            raise ValueError(f"{source}: the class {twice[0]!r} is there twice")
        index = {name: number for number, name in enumerate(classes)}
        _refuse_unknown(own, index, source)
    if len(classes) == 1:
        raise ValueError(f"{source}: {classes[0]!r} is one class alone, so nothing to tell apart")
    return list(classes), padded_labels([[index[name] for name in each] for each in own])


def padded_labels(own: Sequence[Sequence[int]]) -> np.ndarray:
    """Classes of images (n, most), with -1 where an image has no further one.

    >>> padded_labels([[3], [1, 2], []]).tolist()
    [[3, -1], [1, 2], [-1, -1]]
    """
    labels = np.full((len(own), max(1, *map(len, own))), -1)
    for row, each in enumerate(own):
        labels[row, : len(each)] = each
    return labels


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _refuse_unknown(own: Sequence[Sequence[str]], index: dict[str, int], source: str) -> None:
    unknown = [name for each in own for name in each if name not in index]
    if not unknown:
        return
    count = sum(any(name not in index for name in each) for each in own)
    near = suggestions(unknown[0], list(index))
    raise ValueError(
        f"{source}: {count:,} of {len(own):,} images are of a class that is not there, such as "
        f"{unknown[0]!r}" + (f"; did you mean that by {near[0]!r}?" if near else "")
    )


def refuse_empty_classes(
    classes: Sequence[str], labels: np.ndarray, what: str, source: str = "the classes"
) -> None:
    """Raises a ValueError that names the classes that no label is of, if there are any.

    >>> refuse_empty_classes(["cat", "dog"], np.array([0, 0]), "an image to learn from")
    Traceback (most recent call last):
    ValueError: the classes: 1 of 2 classes does not have an image to learn from: 'dog'
    """
    absent = np.setdiff1d(np.arange(len(classes)), labels)
    if len(absent):
        named = ", ".join(repr(classes[number]) for number in absent[:3])
        more = ", ..." if len(absent) > 3 else ""
        verb = "does" if len(absent) == 1 else "do"
        raise ValueError(
            f"{source}: {len(absent):,} of {len(classes):,} classes {verb} not have {what}: "
            f"{named}{more}"
        )
