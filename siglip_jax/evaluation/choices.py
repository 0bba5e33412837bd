"""Which of several captions belongs to an image: SugarCrepe, ARO and WinoGround.

The definitions are CLIP_benchmark's (`metrics/image_caption_selection.py`, at 48de38c). Captions
of such sets differ in few words, so that the right one has to be told from near ones. What is
equal to the right one and comes later loses, as there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def caption_choice(
    zimg: Any, ztxt: Any, image_of_group: Sequence[int] | Any, text_of_group: Sequence[int] | Any
) -> dict[str, float]:
    """Shares of groups of images and captions that are told apart right, between 0 and 1.

    In a group the first caption belongs to the first image, the second to the second. Images
    or captions beyond that belong to none.

    `text_accuracy`: of every image of the group that has a caption, its own is the nearest of
    the group's. `image_accuracy`: of every caption that has an image, that is the nearest.
    `group_accuracy`: both. With one image a group the last two say nothing, and are left out.
    `tied_groups` is the share of groups where something else is exactly as near as what is
    right; of these the lower index counts as the nearest, so a tie can be a success.

    Args:
      zimg: (i, d) embeddings of images, numpy or jax.
      ztxt: (t, d) embeddings of captions.
      image_of_group: (i,) to which group each image belongs, any integers.
      text_of_group: (t,) the same of captions.

    Raises:
      ValueError: if shapes do not fit, an embedding is not finite, a group has no image or no
        caption, or there is but one of each.

    >>> z = np.float32([[1, 0], [0, 1]])
    >>> caption_choice(z, z[[0, 1, 1, 0]], [0, 1], [0, 0, 1, 1])  # one image, two captions
    {'text_accuracy': 1.0, 'tied_groups': 0.0}
    >>> caption_choice(z, np.float32([[1, 0], [2, 1]]), [0, 0], [0, 0])["group_accuracy"]
    0.0
    """
    arrays = np.asarray(zimg, np.float32), np.asarray(ztxt, np.float32)
    groups = _groups(*arrays, np.asarray(image_of_group), np.asarray(text_of_group))
    texts, images, both, ties = [], [], [], []
    for own_images, own_texts in groups:
        scores = arrays[0][own_images] @ arrays[1][own_texts].T
        pairs = np.arange(min(scores.shape))
        right = scores[pairs, pairs]
        texts.append((scores.argmax(axis=1)[pairs] == pairs).all())
        images.append((scores.argmax(axis=0)[pairs] == pairs).all())
        both.append(texts[-1] and images[-1])
        # Each right one is equal to itself, once in its row and once in its column.
        equal = (scores[pairs] == right[:, None]).sum() + (scores[:, pairs] == right).sum()
        ties.append(equal > 2 * len(pairs))
    found = {"text_accuracy": texts}
    if max(len(own_images) for own_images, _ in groups) > 1:
        found |= {"image_accuracy": images, "group_accuracy": both}
    return {
        name: float(np.mean(values)) for name, values in (found | {"tied_groups": ties}).items()
    }


def _groups(
    zimg: np.ndarray, ztxt: np.ndarray, image_of: np.ndarray, text_of: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The rows of images and of captions of each group."""
    if zimg.ndim != 2 or ztxt.ndim != 2 or zimg.shape[1] != ztxt.shape[1] or not len(zimg):
        raise ValueError(
            "expected embeddings (i, d) of images and (t, d) of captions, got "
            f"{zimg.shape} and {ztxt.shape}"
        )
    if not np.isfinite(zimg).all() or not np.isfinite(ztxt).all():
        raise ValueError("some embeddings are not finite; leave out what could not be embedded")
    for what, of, count in (("image", image_of, len(zimg)), ("text", text_of, len(ztxt))):
        if of.shape != (count,) or not np.issubdtype(of.dtype, np.integer):
            raise ValueError(
                f"{what}_of_group must hold one integer for each of the {count}, "
                f"got {of.dtype} of shape {of.shape}"
            )
    alone = np.setxor1d(image_of, text_of)
    if len(alone):
        which = "caption" if alone[0] in image_of else "image"
        raise ValueError(f"{len(alone):,} groups lack one side; group {alone[0]} has no {which}")
    names, images, texts = np.unique(image_of), _parts(image_of), _parts(text_of)
    for name, *own in zip(names, images, texts, strict=True):
        if len(own[0]) == len(own[1]) == 1:
            raise ValueError(f"group {name} has one image and one caption, so nothing to choose")
    return list(zip(images, texts, strict=True))


def _parts(group_of: np.ndarray) -> list[np.ndarray]:
    """The rows of each group, in the order of the groups' numbers."""
    order = np.argsort(group_of, kind="stable")
    starts = np.flatnonzero(np.diff(group_of[order])) + 1
    return np.split(order, starts)
