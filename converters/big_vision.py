"""big_vision's own formats: a `.npz`, or a tensorstore folder (`siglip_jax.weights`)."""

from pathlib import Path
from typing import Self

import numpy as np

from siglip_jax import checkpoints
from siglip_jax.config import Siglip
from siglip_jax.errors import ModelError
from siglip_jax.weights.architecture import config_from_shapes
from siglip_jax.weights.big_vision import open_big_vision
from siglip_jax.weights.layout import Shapes, only_tower
from siglip_jax.weights.npz import NpzReader, write_npz
from siglip_jax.weights.reader import Reader
from siglip_jax.weights.tensorstore_folder import write_folder

from .checkpoint import OpenCheckpoint, released_vocabulary, vocabulary_beside
from .format import Format
from .wrappers import left_out, report, unwrapped

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


def open_path(
    path: Path, *, config: Siglip | None = None, res: int | None = None
) -> OpenCheckpoint:
    """Opens a `.npz` or a tensorstore checkpoint.

    Args:
      path: as `weights.big_vision.open_big_vision` takes it, but whole; or a
        folder with one `.npz`.
      config: the architecture; else a released file's name or the shapes tell.
      res: image side in pixels, where shapes leave it open.

    Raises:
      ValueError: if it cannot be read, or `config` or `res` is needed.
    """
    if path.is_dir() and _only_npz(path):
        (path,) = path.glob("*.npz")
    reader = open_big_vision(path)
    form = NPZ if isinstance(reader, NpzReader) else TENSORSTORE
    if isinstance(reader, NpzReader):
        reader = unwrapped(reader)
    dropped = dict.fromkeys(reader.ignored, "not a parameter") | left_out(reader)
    reports = report(reader)
    try:
        if reader.subtree:
            raise ValueError(f"{path}: give the whole checkpoint, and the tower you want of it")
        shapes = {name: header.shape for name, header in reader.shapes.items()}
        if _POSEMB in shapes and shapes.get(_OLD_POSEMB) == shapes[_POSEMB]:
            reader, dropped[_OLD_POSEMB] = _Summed(reader), "added to txt/pos_embedding"
        if config is None:
            config = _config(path, shapes, res)
        elif tower := only_tower(shapes):
            config = config.only(tower)
    except BaseException:
        reader.close()
        raise
    known = released_vocabulary(config)
    return OpenCheckpoint(
        format=form.name,
        path=path,
        reader=reader,
        files=tuple(_files(Path(reader.path))),
        config=config,
        dropped=dropped,
        vocabulary=vocabulary_beside(path.parent, config),
        pad=known.pad if known else None,
        reports=reports,
    )


def _config(path: Path, shapes: Shapes, res: int | None) -> Siglip:
    try:
        # A released file keeps its name: then its row is what it must fit, tensor by tensor.
        return checkpoints.find(path.name).config.only(only_tower(shapes))
    except ValueError:
        pass
    try:
        try:
            return config_from_shapes(shapes)
        except ModelError:
            if res is None:
                raise
            return config_from_shapes(shapes, res=res)
    except ModelError as error:
        raise error.about(path) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _only_npz(folder: Path) -> bool:
    return len(list(folder.glob("*.npz"))) == 1


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


NPZ = Format(
    name="npz",
    weights=("*.npz",),
    recognises=_only_npz,
    open=open_path,
    write_weights=lambda path, headers, items: write_npz(path, items),
    ending=".npz",
)
TENSORSTORE = Format(
    name="tensorstore",
    recognises=lambda folder: any(folder.glob("*-LAST")) or any(folder.glob("params~*")),
    open=open_path,
    write_weights=lambda path, headers, items: write_folder(path, items),
)
