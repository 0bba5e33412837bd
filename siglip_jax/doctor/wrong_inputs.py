"""What a tower is fed by a pipeline with given settings. NumPy only.

The right settings give what `preprocessing` gives, bit for bit; tests hold the two equal.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
from PIL import Image

from siglip_jax.config import NaFlexVision, Vision
from siglip_jax.doctor.interpolation import interpolated
from siglip_jax.doctor.settings import MEAN_AND_STD, ImageSettings, TextSettings
from siglip_jax.preprocessing import ImageProfile, Patches, TextProfile, clean_text
from siglip_jax.preprocessing.images import resize_uint8, to_float
from siglip_jax.preprocessing.naflex import naflex_patches
from siglip_jax.preprocessing.profiles import Resize
from siglip_jax.preprocessing.resize import tf_antialias_resize
from siglip_jax.preprocessing.text import Tokenizer

_CLEAN = {"keep": "none", "delete": "delete_punctuation", "canonicalize": "canonicalize"}


class TextInputs(NamedTuple):
    """Texts, and what a tower is to look at.

    Attributes:
      ids: (n, length of the model) int32.
      keys: (n, length) bool, positions that attention sees.
      pool: (n,) int32, the position that becomes the embedding.
    """

    ids: np.ndarray
    keys: np.ndarray
    pool: np.ndarray


def tokens(tokenizer: Tokenizer, texts: Sequence[str], settings: TextSettings) -> list[list[int]]:
    """Ids of each text, cleaned as the settings say, without an end and without padding.

    `tokenizer` must clean nothing and have room for all of a text.
    """
    profile: TextProfile = dataclasses.replace(
        tokenizer.profile, lower=settings.lower, clean=_CLEAN[settings.punctuation]
    )
    ids = tokenizer.encode([clean_text(text, profile) for text in texts])
    ends = (ids == profile.eos).argmax(1)
    return [row[:end].tolist() for row, end in zip(ids, ends, strict=True)]


def text_inputs(
    texts: Sequence[list[int]], settings: TextSettings, length: int, eos: int = 1
) -> TextInputs:
    """Texts as ids, ended, cut and padded as the settings say.

    Padding to the longest is padding to the text itself: the rest of the context is hidden
    from attention, which leaves exactly what a shorter sequence would compute.

    >>> settings = TextSettings(
    ...     pad=0, length=6, lower="none", punctuation="keep", padding="longest"
    ... )
    >>> text_inputs([[7, 8]], settings, length=6)
    TextInputs(ids=array([[7, 8, 1, 0, 0, 0]], dtype=int32), keys=array([[ True,  True,  True, \
False, False, False]]), pool=array([2], dtype=int32))
    """
    ids = np.full((len(texts), length), settings.pad, np.int32)
    keys = np.zeros((len(texts), length), bool)
    pool = np.zeros(len(texts), np.int32)
    for i, text in enumerate(texts):
        row = [*text, eos] if settings.eos != "none" else list(text)
        if len(row) > settings.length:
            row = row[: settings.length]
            if settings.eos == "sticky":
                row[-1] = eos
        start = settings.length - len(row) if settings.padding == "left" else 0
        end = len(row) if settings.padding == "longest" else settings.length
        ids[i, start : start + len(row)] = row
        if settings.mask == "padding":
            keys[i, start : start + len(row)] = True
        else:
            keys[i, :end] = True
        ended = np.flatnonzero(ids[i, :end] == eos)
        pool[i] = ended[0] if settings.pooling == "eos" and len(ended) else end - 1
    return TextInputs(ids, keys, pool)


def fixed_inputs(pictures: Sequence[np.ndarray], settings: ImageSettings) -> np.ndarray:
    """Images for a fixed-resolution tower, (n, res, res, 3) float32."""
    return np.stack([renormalised(to_float(_square(p, settings)), settings) for p in pictures])


def naflex_inputs(
    pictures: Sequence[np.ndarray], settings: ImageSettings, vision: NaFlexVision, table: np.ndarray
) -> tuple[Patches, np.ndarray]:
    """Images for a NaFlex tower, and what a wrong position embedding adds to each patch."""
    profile = ImageProfile(
        decode="pillow",
        # Pillow's bilinear is torch's but for the order of axes, that is, for rounding.
        resize=cast(Resize, settings.resize.replace("pil_bilinear", "torch_bilinear")),
        max_patches=settings.res,
        res=math.isqrt(settings.res) * vision.patch if settings.framing == "squash" else None,
    )
    rows, shifts = [], []
    for picture in pictures:
        one = naflex_patches(picture, profile, vision.patch)
        rows.append(one._replace(patches=renormalised(one.patches, settings)))
        shift = np.zeros((settings.res, table.shape[-1]), np.float32)
        if settings.posemb != "bilinear_antialias":
            grid = int(one.yidx.max()) + 1, int(one.xidx.max()) + 1
            wrong = interpolated(table, *grid, settings.posemb)
            wrong -= interpolated(table, *grid, "bilinear_antialias")
            used = one.type == 1
            shift[used] = wrong[one.yidx[used], one.xidx[used]]
        shifts.append(shift)
    return Patches(*map(np.stack, zip(*rows, strict=True))), np.stack(shifts)


def fixed_posemb(table: np.ndarray, settings: ImageSettings, vision: Vision) -> np.ndarray:
    """The (1, n, d) position embedding of a fixed-resolution tower at `settings.res`."""
    grid = settings.res // vision.patch
    if grid == vision.grid:
        return table
    square = table.reshape(vision.grid, vision.grid, -1)
    return interpolated(square, grid, grid, settings.posemb).reshape(1, grid * grid, -1)


def renormalised(pixels: np.ndarray, settings: ImageSettings) -> np.ndarray:
    """Values in [-1, 1], channels last (or innermost), as another normalisation has them."""
    if settings.normalisation == "half":
        return pixels
    mean, std = np.asarray(MEAN_AND_STD[settings.normalisation], np.float32)
    colours = pixels.reshape(-1, 3)
    return (((colours + 1) / 2 - mean) / std).reshape(pixels.shape).astype(np.float32)


def _square(picture: np.ndarray, settings: ImageSettings) -> np.ndarray:
    res = settings.res
    if settings.framing == "squash":
        return _resized(picture, res, res, settings.resize)
    height, width = picture.shape[:2]
    short = min(height, width)
    # torchvision's Resize and CenterCrop.
    height, width = int(res * height / short), int(res * width / short)
    top, left = round((height - res) / 2), round((width - res) / 2)
    whole = _resized(picture, height, width, settings.resize)
    return whole[top : top + res, left : left + res]


def _resized(picture: np.ndarray, height: int, width: int, method: str) -> np.ndarray:
    if method == "tf_antialias":
        floats = tf_antialias_resize(picture.astype(np.float32), height, width)
        return np.clip(floats, 0, 255).astype(np.uint8)
    if method == "pil_bilinear":
        image = Image.fromarray(picture)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    profile = ImageProfile(decode="pillow", resize=cast(Resize, method), res=height)
    return resize_uint8(picture, height, width, profile)
