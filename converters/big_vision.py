"""big_vision's own formats: a `.npz`, or a tensorstore folder (`siglip_jax.weights`)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import numpy as np

from siglip_jax import checkpoints
from siglip_jax.config import Siglip, Size, Vision
from siglip_jax.weights.architecture import config_from_shapes
from siglip_jax.weights.layout import Shapes
from siglip_jax.weights.npz import NpzReader
from siglip_jax.weights.reader import Reader
from siglip_jax.weights.routes import reform
from siglip_jax.weights.source import open_source

from .source import (
    PREFIX,
    Source,
    Tower,
    image_only,
    released_vocabulary,
    text_only,
    tower_shapes,
    vocabulary_beside,
)

TOWERS: tuple[Tower | None, ...] = (None, "image", "text")
_POSEMB, _OLD_POSEMB = "txt/pos_embedding", "txt/Encoder_0/pos_embedding"


class _Summed:
    """A checkpoint whose two text position embeddings are read as their sum."""

    def __init__(self, whole: Reader) -> None:
        self.path, self.subtree, self.ignored = whole.path, whole.subtree, whole.ignored
        self.shapes = {n: h for n, h in whole.shapes.items() if n != _OLD_POSEMB}
        self._whole = whole

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._whole.close()

    def read(self, name: str) -> np.ndarray:
        array = self._whole.read(name)
        # big_vision: old text towers added a second embedding by mistake; the sum was trained.
        return array + self._whole.read(_OLD_POSEMB) if name == _POSEMB else array


def open_path(path: Path, *, config: Siglip | None = None, res: int | None = None) -> Source:
    """Opens a `.npz` or a tensorstore checkpoint.

    Args:
      path: as `weights.source.open_source` takes it, but whole.
      config: the architecture; else a released file's name or the shapes tell.
      res: image side in pixels, where shapes leave it open.

    Raises:
      ValueError: if it cannot be read, or `config` or `res` is needed.
    """
    reader = open_source(path)
    dropped = dict.fromkeys(reader.ignored, "not a parameter")
    npz = isinstance(reader, NpzReader)
    try:
        if reader.subtree:
            raise ValueError(f"{path}: give the whole checkpoint, and the tower you want of it")
        shapes = {name: header.shape for name, header in reader.shapes.items()}
        if _POSEMB in shapes and shapes.get(_OLD_POSEMB) == shapes[_POSEMB]:
            reader, dropped[_OLD_POSEMB] = _Summed(reader), "added to txt/pos_embedding"
        tower = only_tower(shapes)
        if config is None:
            config = _config(path, shapes, tower, res)
    except BaseException:
        reader.close()
        raise
    known = released_vocabulary(config) if tower != "image" else None
    return Source(
        format="npz" if npz else "tensorstore",
        path=path,
        reader=reader,
        files=tuple(_files(Path(reader.path))),
        config=config,
        tower=tower,
        dropped=dropped,
        vocabulary=vocabulary_beside(path.parent, config),
        pad=known.pad if known else None,
    )


def only_tower(names: Iterable[str]) -> Tower | None:
    """The tower that all of `names` are in; None if they are a whole model's."""
    names = list(names)
    for tower, prefix in PREFIX.items():
        if names and all(name.startswith(prefix) for name in names):
            return tower
    return None


def _config(path: Path, shapes: Shapes, tower: Tower | None, res: int | None) -> Siglip:
    try:
        # A released file keeps its name: then its row is what it must fit, tensor by tensor.
        return checkpoints.find(path.name).config
    except ValueError:
        pass
    if tower == "text":
        return _text_config(path, shapes)
    try:
        if tower == "image":
            return _image_config(shapes, res)
        try:
            return config_from_shapes(shapes)
        except ValueError:
            if res is None:
                raise
            return config_from_shapes(shapes, res=res)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _image_config(shapes: Shapes, res: int | None) -> Siglip:
    """Of an image tower alone; the text tower is a placeholder."""
    width = shapes.get("img/pos_embedding", (1,))[-1]
    whole = {**tower_shapes(_stand_in(width), "text"), **shapes}
    if res is None and len(shapes.get("img/embedding/kernel", ())) == 4:
        # The resolution is that of the released image tower which is like this one.
        for row in checkpoints.CHECKPOINTS:
            like = tower_shapes(row.config, "image")
            if isinstance(row.config.vision, Vision) and like.items() <= _looped(shapes).items():
                res = row.config.vision.res
    return image_only(config_from_shapes(whole, res=res).vision)


def _text_config(path: Path, shapes: Shapes) -> Siglip:
    """Of a text tower alone; the image tower is a placeholder."""
    width = shapes.get("txt/head/bias", shapes.get("txt/pos_embedding", (1,)))[-1]
    whole = {**tower_shapes(_stand_in(width), "image"), **shapes}
    try:
        return text_only(config_from_shapes(whole, res=1).text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _stand_in(width: int) -> Siglip:
    size = Size(width=width, depth=1, mlp_dim=1, num_heads=1)
    return image_only(Vision(size=size, patch=1, res=1))


def _looped(shapes: Shapes) -> Shapes:
    routes = reform(shapes, scan_image=False, scan_text=False)
    return {
        target: shapes[route.sources[0]][route.how == "unstack" :]
        for route in routes
        for target in route.targets
    }


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
