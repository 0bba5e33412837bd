"""Which format a path is in, and opening it."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from siglip_jax.config import Siglip
from siglip_jax.weights.source import open_source

from . import big_vision, open_clip, siglip_folder, timm, transformers
from .files import open_file
from .json_file import read_settings
from .source import Source

FORMATS = ("npz", "tensorstore", "transformers", "open_clip", "timm", "siglip_jax")

SYSTEMS: dict[str, Any] = {
    "transformers": transformers,
    "open_clip": open_clip,
    "timm": timm,
    "siglip_jax": siglip_folder,
}

# Names that weights without a configuration are recognised by.
_BY_NAME = (
    ("open_clip", r"visual\.|text\.transformer\.resblocks\."),
    ("transformers", r"(vision|text)_model\."),
    ("timm", r"blocks\.\d+\.|patch_embed\.|embeds\.|attn_pool\."),
)


def detect(path: str | Path) -> str:
    """The format of a local file or folder, one of `FORMATS`.

    Raises:
      ValueError: if it is none of them.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    if path.is_file() and path.suffix != ".npz" and not path.name.endswith("-LAST"):
        return _of_file(path)
    if path.is_file() and path.suffix == ".npz":
        return "npz"
    # A pointer, or the name in front of `-LAST`; else the error with near names.
    open_source(path).close()
    return "tensorstore"


def open_checkpoint(
    path: str | Path, *, config: Siglip | None = None, res: int | None = None
) -> Source:
    """Opens weights of any format under big_vision's names; only headers are read.

    Args:
      path: a file or a folder.
      config: the architecture, where the files do not say it: weights without the
        configuration beside them state neither heads nor image size.
      res: image side in pixels of a big_vision checkpoint that is no released one.

    Raises:
      ValueError: if it is no SigLIP, damaged, or does not say enough; the message
        names what is missing.
    """
    path = Path(path)
    found = detect(path)
    if found in ("npz", "tensorstore"):
        if path.is_dir() and found == "npz":
            (path,) = path.glob("*.npz")
        return big_vision.open_path(path, config=config, res=res)
    system = SYSTEMS[found]
    if path.is_dir():
        return system.open_folder(path, config=config)
    if config is None and not (path.parent / system.CONFIG).is_file():
        raise ValueError(
            f"{path} does not say how many heads the model has, nor its image size, and there is "
            f"no {system.CONFIG} beside it; pass config, of a model like it for instance: "
            "siglip_jax.find(NAME).config"
        )
    source = system.open_folder(path.parent, config=config, weights=path)
    return dataclasses.replace(source, path=path)


def _of_folder(path: Path) -> str:
    for name in ("siglip_jax", "open_clip"):
        if (path / SYSTEMS[name].CONFIG).is_file():
            return name
    if (path / transformers.CONFIG).is_file():
        card = read_settings(path / transformers.CONFIG)
        if "model_type" in card:
            return "transformers"
        if "architecture" in card:
            return "timm"
    if len(list(path.glob("*.npz"))) == 1:
        return "npz"
    try:
        open_source(path).close()
    except ValueError as error:
        if any(path.glob("*-LAST")) or any(path.glob("params~*")):
            raise
        names = sorted(entry.name for entry in path.iterdir())[:6]
        raise ValueError(
            f"{path} is no big_vision checkpoint, nor a folder of transformers, open_clip, timm "
            f"or siglip_jax: it holds {', '.join(names) or 'nothing'}"
        ) from error
    return "tensorstore"


def _of_file(path: Path) -> str:
    if path.parent.joinpath(siglip_folder.CONFIG).is_file():
        return "siglip_jax"
    with open_file(path) as reader:
        names = list(reader.shapes)
    for found, pattern in _BY_NAME:
        if any(re.match(pattern, name) for name in names):
            return found
    what = f"it holds {', '.join(names[:3])}, ..." if names else "it holds no tensors"
    raise ValueError(f"{path} is not the weights of a SigLIP of any known system: {what}")
