"""big_vision's own formats: a `.npz`, or a tensorstore folder (`siglip_jax.weights`)."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

from siglip_jax import checkpoints
from siglip_jax.checkpoints import Checkpoint
from siglip_jax.config import Siglip, Tower
from siglip_jax.errors import ModelError
from siglip_jax.weights.architecture import config_from_shapes
from siglip_jax.weights.big_vision import open_big_vision
from siglip_jax.weights.layout import PREFIX, Shapes, only_tower
from siglip_jax.weights.npz import NpzReader, write_npz
from siglip_jax.weights.reader import Reader
from siglip_jax.weights.tensorstore_folder import write_folder

from .checkpoint import OpenCheckpoint, vocabulary_beside, vocabulary_of_rows
from .format import Format
from .wrappers import left_out, report, unwrapped

_TOKENS = "txt/Embed_0/embedding"
_POSEMB, _OLD_POSEMB = "txt/pos_embedding", "txt/Encoder_0/pos_embedding"


class Part:
    """Those tensors of a checkpoint whose names `keep` takes."""

    def __init__(self, whole: Reader, keep: Callable[[str], bool]) -> None:
        self.path, self.subtree, self.ignored = whole.path, whole.subtree, whole.ignored
        self.shapes = {name: header for name, header in whole.shapes.items() if keep(name)}
        self._whole = whole

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._whole.close()

    def read(self, name: str) -> np.ndarray:
        return self._whole.read(name)


class _Summed(Part):
    """A checkpoint whose two text position embeddings are read as their sum."""

    def __init__(self, whole: Reader) -> None:
        super().__init__(whole, lambda name: name != _OLD_POSEMB)

    def read(self, name: str) -> np.ndarray:
        array = super().read(name)
        # big_vision: old text towers added a second embedding by mistake; the sum was trained.
        return array + self._whole.read(_OLD_POSEMB) if name == _POSEMB else array


def tower_of(
    reader: Reader, tower: Tower | None, dropped: dict[str, str]
) -> tuple[Reader, Tower | None]:
    """What is read of one tower of a checkpoint under big_vision's names, and the only tower.

    Args:
      reader: the checkpoint.
      tower: the one that is wanted; None for all there is.
      dropped: where to note what is left out.

    Raises:
      ValueError: if it has no such tower.
    """
    if tower is None or only_tower(reader.shapes) == tower:
        return reader, only_tower(reader.shapes)
    inside = f"{PREFIX[tower]}/"
    part = Part(reader, lambda name: name.startswith(inside))
    if not part.shapes:
        raise ValueError(f"{reader.path} has no {tower} tower")
    left = [name for name in reader.shapes if name not in part.shapes]
    dropped |= dict.fromkeys(left, f"not in the {tower} tower")
    return part, tower


def open_path(
    path: Path,
    *,
    config: Siglip | None = None,
    res: int | None = None,
    tower: Tower | None = None,
) -> OpenCheckpoint:
    """Opens a `.npz` or a tensorstore checkpoint.

    Args:
      path: as `weights.big_vision.open_big_vision` takes it, but whole; or a
        folder with one `.npz`.
      config: the architecture; else a released file's name or the shapes tell.
      res: image side in pixels, where shapes leave it open.
      tower: the only one to read.

    Raises:
      ValueError: if it cannot be read, or `config` or `res` is needed.
    """
    if path.is_dir() and _only_npz(path):
        (path,) = path.glob("*.npz")
    reader: Reader = open_big_vision(path)
    form = NPZ if isinstance(reader, NpzReader) else TENSORSTORE
    if isinstance(reader, NpzReader):
        reader = unwrapped(reader)
    dropped = dict.fromkeys(reader.ignored, "not a parameter") | left_out(reader)
    reports = report(reader)
    try:
        if reader.subtree:
            raise ValueError(f"{path}: give the whole checkpoint, and the tower you want of it")
        rows = reader.shapes[_TOKENS].shape[0] if _TOKENS in reader.shapes else None
        reader, only = tower_of(reader, tower, dropped)
        shapes = {name: header.shape for name, header in reader.shapes.items()}
        if _POSEMB in shapes and shapes.get(_OLD_POSEMB) == shapes[_POSEMB]:
            reader, dropped[_OLD_POSEMB] = _Summed(reader), "added to txt/pos_embedding"
        if config is None:
            config = _config(path, shapes, res)
        elif only is not None:
            config = _without_head(config.only(only), shapes)
    except BaseException:
        reader.close()
        raise
    known, row = vocabulary_of_rows(rows), _named(path)
    if known is None and row is not None and config.tower == "image":
        known = row.vocabulary  # of the texts beside a tower that is called after its model
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


def _without_head(config: Siglip, shapes: Shapes) -> Siglip:
    """`config` of an image tower alone, as headless as the file that it is to describe."""
    vision, head = config.vision, f"{PREFIX['image']}/MAPHead_0/"
    if vision is None or vision.pool != "map" or any(name.startswith(head) for name in shapes):
        return config
    return dataclasses.replace(config, vision=dataclasses.replace(vision, pool="none"))


def _named(path: Path) -> Checkpoint | None:
    """The released checkpoint that a file is called after."""
    try:
        return checkpoints.find(path.name)
    except ValueError:
        return None


def _config(path: Path, shapes: Shapes, res: int | None) -> Siglip:
    # A released file keeps its name: then its row is what it must fit, tensor by tensor.
    if row := _named(path):
        return row.config.only(only_tower(shapes))
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
