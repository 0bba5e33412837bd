"""Ranks of every image's best own text and of every text's image, by chunks.

A recall needs no sorted list, only how many candidates come before the right one. So the
matrix of similarities is computed twice, a block at a time: once for the similarity of what
belongs together, once to count what is ahead of it. No device holds more than a block and
its own rows.

Texts in the order of their images are quickest: in any other order most blocks are computed
twice. Beside the embeddings and a copy of them it needs little memory; see `rank_program`.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Int32

from siglip_jax.evaluation.rank_program import CHUNK, NEVER, compiled, padded_shapes, shardings
from siglip_jax.programs.sharding import make_mesh, put

__all__ = ["CHUNK", "NEVER", "Ranks", "ranks"]


class Ranks(NamedTuple):
    """0 is the best place.

    Attributes:
      img2txt: (i,) int32, of each image the place of its best own text among all
        texts; `NEVER` if it has none.
      txt2img: (t,) int32, of each text the place of its image among all images.
    """

    img2txt: np.ndarray
    txt2img: np.ndarray


def ranks(
    zimg: Any, ztxt: Any, image_of_text: Any, *, mesh: Mesh | None = None, chunk: int = CHUNK
) -> Ranks:
    """Places of what belongs together, by dot product in float32.

    Of equal similarities the one with the lower index comes first.

    Args:
      zimg: (i, d) embeddings of images, numpy or jax.
      ztxt: (t, d) embeddings of texts.
      image_of_text: (t,) the row of `zimg` that each text belongs to, in any order.
      mesh: devices that share the rows (`make_mesh`); default: the first
        device alone. Several processes call this with the same inputs.
      chunk: rows of a block, of either kind; rounded up.

    Raises:
      ValueError: if shapes or indices do not fit, or an embedding is not finite.

    >>> ranks(np.eye(3), np.eye(3)[[0, 1, 1]], [0, 1, 2])
    Ranks(img2txt=array([0, 0, 2], dtype=int32), txt2img=array([0, 0, 2], dtype=int32))
    """
    zimg, ztxt, owner = _checked(zimg, ztxt, image_of_text)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    mesh = make_mesh(jax.devices()[:1]) if mesh is None else mesh
    shapes = padded_shapes(len(zimg), len(ztxt), zimg.shape[1], mesh, chunk)
    program = compiled(mesh)
    images, texts, owners = (
        put(_filled(array, shape, fill), sharding)
        for array, shape, fill, sharding in zip(
            (zimg, ztxt, owner), shapes, (0, 0, -1), shardings(mesh), strict=True
        )
    )
    img2txt, txt2img = program(images, texts, owners, np.int32(len(zimg)))
    return Ranks(
        np.asarray(img2txt).reshape(-1)[: len(zimg)], np.asarray(txt2img).reshape(-1)[: len(ztxt)]
    )


def _checked(
    zimg: Any, ztxt: Any, image_of_text: Any
) -> tuple[Float32[np.ndarray, "i d"], Float32[np.ndarray, "t d"], Int32[np.ndarray, " t"]]:
    arrays = {"zimg": np.asarray(zimg, np.float32), "ztxt": np.asarray(ztxt, np.float32)}
    for name, z in arrays.items():
        if z.ndim != 2 or not len(z):
            raise ValueError(f"{name} must have shape (n, d) with n at least 1, got {z.shape}")
        bad = np.flatnonzero(~np.isfinite(z).all(axis=1))
        if len(bad):
            raise ValueError(
                f"{len(bad)} rows of {name} are not finite, the first is row {bad[0]}; leave "
                "out what could not be embedded"
            )
    zimg, ztxt = arrays.values()
    if zimg.shape[1] != ztxt.shape[1]:
        raise ValueError(
            f"zimg has {zimg.shape[1]} columns, ztxt has {ztxt.shape[1]}; "
            "both must come from one model"
        )
    owner = np.asarray(image_of_text)
    if owner.shape != (len(ztxt),) or not np.issubdtype(owner.dtype, np.integer):
        raise ValueError(
            f"image_of_text must hold one integer for each of the {len(ztxt)} texts, "
            f"got {owner.dtype} of shape {owner.shape}"
        )
    if owner.min() < 0 or owner.max() >= len(zimg):
        raise ValueError(
            f"image_of_text must lie in 0..{len(zimg) - 1}, got {owner.min()}..{owner.max()}"
        )
    return zimg, ztxt, owner.astype(np.int32)


def _filled(array: np.ndarray, shape: tuple[int, ...], fill: int) -> np.ndarray:
    """`array` with rows of `fill` appended, cut into the leading axes of `shape`."""
    missing = math.prod(shape[:2]) - len(array)
    widths = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, widths, constant_values=fill).reshape(shape)
