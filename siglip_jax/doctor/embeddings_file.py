"""Embeddings of the bundled inputs that another pipeline wrote."""

from pathlib import Path

import numpy as np

from siglip_jax.config import Tower
from siglip_jax.messages import reason
from siglip_jax.verify import inputs
from siglip_jax.weights.bounds import open_zip

# Name of the array to whose rows they are.
TOWERS: dict[str, Tower] = {"zimg": "image", "ztxt": "text"}


def read_embeddings(files: list[Path], width: int) -> dict[Tower, np.ndarray]:
    """Tower to (n, width) float32, from .npz files that hold `zimg`, `ztxt` or both.

    Raises:
      ValueError: if a file cannot be read, holds neither or one that another held, or
        rows are not as many as the bundled inputs, as wide as the model's, finite.
    """
    found: dict[Tower, np.ndarray] = {}
    for file in files:
        try:
            with file.open("rb") as opened:
                open_zip(opened)
                opened.seek(0)
                with np.load(opened, allow_pickle=False) as arrays:
                    names = list(arrays)
                    # A member that is no array comes as its bytes.
                    here = {name: np.asarray(arrays[name]) for name in TOWERS if name in names}
        except OSError as error:
            raise ValueError(f"{file}: {reason(error)}") from error
        # numpy parses a header as Python, and raises whatever is wrong with that.
        except Exception as error:
            raise ValueError(f"{file}: not a .npz file with arrays of numbers") from error
        if not here:
            held = ", ".join(names) or "nothing"
            raise ValueError(f"{file}: expected arrays zimg, ztxt or both, got {held}")
        for name, array in here.items():
            if TOWERS[name] in found:
                raise ValueError(f"{file}: another file has an array {name} already")
            found[TOWERS[name]] = check_rows(array, TOWERS[name], width, f"{file}: {name}")
    return found


def check_rows(theirs: np.ndarray, tower: str, width: int, name: str) -> np.ndarray:
    """`theirs` as float32, if they can be embeddings of the bundled inputs.

    Raises:
      ValueError: if their shape is another, or a row is not finite or zero.
    """
    rows = len(inputs.pictures()) if tower == "image" else len(inputs.TEXTS)
    what = "pictures" if tower == "image" else "texts"
    if theirs.dtype.kind not in "fV" or theirs.ndim != 2:
        raise ValueError(
            f"{name}: expected floats of shape ({rows}, {width}), got {theirs.dtype} of shape "
            f"{theirs.shape}"
        )
    if len(theirs) != rows:
        raise ValueError(
            f"{name}: expected {rows} rows, one for each bundled {what[:-1]} "
            f"(siglip-jax doctor --write-inputs FOLDER), got {len(theirs)}"
        )
    if theirs.shape[1] != width:
        raise ValueError(
            f"{name}: expected rows of width {width}, got {theirs.shape[1]}: another model's?"
        )
    theirs = theirs.astype(np.float32)
    if (bad := np.flatnonzero(~np.isfinite(theirs).all(1))).size:
        raise ValueError(f"{name}: row {bad[0]} is not finite ({len(bad)} such rows)")
    if not (length := np.linalg.norm(theirs, axis=1)).all():
        raise ValueError(f"{name}: row {int(np.argmin(length))} is zero")
    return theirs
