"""Recall at k, from images to texts and back, as big_vision defines it.

Source: big_vision `evaluators/proj/image_text/retrieval.py` and
`image_text_retrieval.py`, at 0127fb6.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from siglip_jax.evaluation.match_ranks import CHUNK, ranks

KS = (1, 5, 10)


def recall(
    zimg: Any,
    ztxt: Any,
    image_of_text: Any,
    *,
    ks: Sequence[int] = KS,
    mesh: Mesh | None = None,
    chunk: int = CHUNK,
) -> dict[str, float]:
    """Shares between 0 and 1, under big_vision's names.

    `img2txt_recall@k`: of the images, how many have a text of their own among the k
    most similar texts. An image without any text counts, as a miss. `txt2img_recall@k`:
    of the texts, how many have their image among the k most similar images.

    Of equal similarities the lower index comes first; big_vision leaves their order to
    numpy's unstable sort.

    Args: as `ranks`, and
      ks: list lengths to report.

    Raises:
      ValueError: as `ranks`, or if a `k` is below 1.

    >>> z = np.eye(4, dtype=np.float32)
    >>> recall(z[:2], z[[0, 1, 0, 3]], [0, 1, 1, 1], ks=[1, 2])
    {'img2txt_recall@1': 1.0, 'img2txt_recall@2': 1.0, \
'txt2img_recall@1': 0.5, 'txt2img_recall@2': 1.0}
    """
    if not ks or any(k < 1 for k in ks):
        raise ValueError(f"ks must be whole numbers of at least 1, got {list(ks)}")
    places = ranks(zimg, ztxt, image_of_text, mesh=mesh, chunk=chunk)
    return {
        f"{direction}_recall@{k}": float(np.mean(place < k))
        for direction, place in places._asdict().items()
        for k in ks
    }
