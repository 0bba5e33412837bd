"""Recall of captions in several languages: of each language, and the mean over them.

As big_vision measures XM3600 (a data set for each of 36 languages, `datasets/xm3600`, at 0127fb6)
and the SigLIP 2 paper reports it: every language weighs the same, however many captions it has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from siglip_jax.evaluation.retrieval import KS, recall


def recall_by_language(
    zimg: Any,
    ztxt: Any,
    image_of_text: Any,
    languages: Sequence[str],
    *,
    ks: Sequence[int] = KS,
    mesh: Mesh | None = None,
) -> dict[str, dict[str, float]]:
    """Of each language, in the order in which they first occur, what `recall` says.

    Each is measured as if it were a data set of its own: among its captions, and the images
    that have some in it.

    Args: as `recall`, and
      languages: (t,) of each text its language, by any name.

    Raises:
      ValueError: as `recall`, or if there is not a language for each text.

    >>> z = np.eye(3, dtype=np.float32)
    >>> recall_by_language(z, z[[0, 2, 1]], [0, 1, 1], ["en", "en", "de"], ks=[1])
    {'en': {'img2txt_recall@1': 0.5, 'txt2img_recall@1': 0.5}, \
'de': {'img2txt_recall@1': 1.0, 'txt2img_recall@1': 1.0}}
    """
    zimg, ztxt, owner = np.asarray(zimg), np.asarray(ztxt), np.asarray(image_of_text)
    spoken = np.asarray(list(languages), dtype=object)
    if not len(ztxt) == len(owner) == len(spoken) or owner.ndim != 1:
        raise ValueError(
            f"expected a language and an image of each of the {len(ztxt)} texts, got "
            f"{len(spoken)} and {len(owner)}"
        )
    if len(owner) and not 0 <= owner.min() <= owner.max() < len(zimg):
        raise ValueError(
            f"image_of_text must lie in 0..{len(zimg) - 1}, got {owner.min()}..{owner.max()}"
        )
    found: dict[str, dict[str, float]] = {}
    for language in dict.fromkeys(spoken):
        texts = np.flatnonzero(spoken == language)
        images, own = np.unique(owner[texts], return_inverse=True)
        found[language] = recall(zimg[images], ztxt[texts], own, ks=ks, mesh=mesh)
    return found


def mean_over(measured: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The unweighted mean of each metric.

    >>> mean_over({"en": {"recall": 1.0}, "de": {"recall": 0.5}})
    {'recall': 0.75}
    """
    (names, *others) = [list(each) for each in measured.values()]
    if any(other != names for other in others):
        raise ValueError("the metrics are not the same for all")
    return {name: float(np.mean([each[name] for each in measured.values()])) for name in names}
