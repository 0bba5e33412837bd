"""The files of a model, opened once, by whatever name; nothing here imports jax."""

import dataclasses
import os
from pathlib import Path

from siglip_jax.config import Siglip, Tower
from siglip_jax.converters import OpenCheckpoint, needed_files, open_checkpoint
from siglip_jax.converters.adapters import is_adapter, merge
from siglip_jax.errors import ModelError, legible
from siglip_jax.fetch import Progress, fetch_model, released


def open_model(
    name: str | os.PathLike[str] | OpenCheckpoint,
    *,
    config: Siglip | None = None,
    res: int | None = None,
    tower: Tower | None = None,
    vocabulary: str | os.PathLike[str] | None = None,
    base: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
) -> OpenCheckpoint:
    """Opens the files of a model. Reads headers only; downloads what is not here.

    Args:
      name: what `siglip_jax.load` takes; what is open already is returned as it is.
      config: the architecture of local weights that do not say it.
      res: image side in pixels of weights that do not say it.
      tower: "image" or "text", the only one to read; the other may be missing, or another
        model's.
      vocabulary: sentencepiece file, if it is not the one beside the weights.
      base: the model that a PEFT adapter is of, by any name; it is merged into that.
      revision: of a hub repository: a branch, tag or commit.
      progress: of a download: called with bytes so far and in all.

    Raises:
      ValueError: if there is no such model (near names are offered), it cannot be had, is no
        SigLIP, or does not say enough.

    >>> with open_model("siglip_emoji") as emoji:
    ...     emoji.name, emoji.format, emoji.config.vision.res
    ('siglip_emoji', 'siglip_jax', 32)
    """
    if isinstance(name, OpenCheckpoint):
        if tower not in (None, name.tower):
            raise ValueError(f"{name.name} is open already; open it with tower={tower!r}")
        opened = name
    else:
        if base is not None and released(name):
            raise _no_adapter(name)  # before its files are downloaded
        files = fetch_model(name, needed_files, revision=revision, progress=progress)
        known = files.checkpoint.config if files.checkpoint else config
        if base is not None and not is_adapter(files.path):
            raise _no_adapter(name)
        if base is not None:
            below = open_model(base, config=config, res=res, tower=tower, progress=progress)
            with legible(files.path):
                opened = merge(below, files.path, tower)
        else:
            opened = open_checkpoint(files.path, config=known, res=res, tower=tower)
            # By its own name: of the architecture alone it would be the released one.
            if files.fine_tune and opened.given_name is None:
                opened = dataclasses.replace(opened, given_name=files.fine_tune)
    if vocabulary is not None:
        opened = dataclasses.replace(opened, vocabulary=Path(vocabulary).expanduser())
    return opened


def _no_adapter(name: str | os.PathLike[str]) -> ModelError:
    return ModelError(
        f"{name} is no PEFT adapter, so that it has no base",
        needs="adapter",
        advice="leave out base",
    )
