"""Opening a file of weights, whatever it is called, by what it begins with."""

from pathlib import Path

from siglip_jax.messages import near_file
from siglip_jax.weights.npz import NpzReader

from .safetensors_file import SafetensorsReader, is_safetensors
from .shards import INDEX, Part, ShardsReader
from .torch_file import TorchReader
from .wrappers import FileReader, unwrapped


def open_file(path: str | Path, part: Part | None = None) -> FileReader:
    """Opens safetensors, a PyTorch file, an index of shards of either, or a `.npz`.

    Names are the model's own, without what training code puts around them (`wrappers`).
    `part` is for shards: see `ShardsReader`.

    Raises:
      ValueError: if it is missing, none of these, or damaged.
    """
    whole = _open_as_stored(Path(path), part)
    keys = whole.keys if isinstance(whole, TorchReader) else ()
    # Of a part of a model it cannot be told whose its `model.` is: what finds it finds it there.
    return unwrapped(whole, keys, likely=part is None)


def _open_as_stored(
    path: Path, part: Part | None = None
) -> SafetensorsReader | ShardsReader | TorchReader | NpzReader:
    if not path.is_file():
        raise ValueError(f"{path} does not exist{near_file(path)}")
    if path.name.endswith(INDEX):
        return ShardsReader(path, _open_as_stored, part)
    if path.suffix == ".safetensors":
        return SafetensorsReader(path)
    if path.suffix == ".npz":
        return NpzReader(path)
    return SafetensorsReader(path) if is_safetensors(path) else TorchReader(path)


def find_weights(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of `names` that is in `folder`, as it is or as an index of shards.

    Raises:
      ValueError: if there is none.
    """
    for name in names:
        for candidate in (folder / name, folder / f"{name}{INDEX}"):
            if candidate.is_file():
                return candidate
    there = ", ".join(_names(folder)[:8]) or "nothing"
    raise ValueError(f"{folder} has no weights: expected {' or '.join(names)}, found {there}")


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
