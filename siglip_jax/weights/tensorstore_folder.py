"""big_vision's tensorstore checkpoints: a folder with one zarr array per tensor.

Training writes `<name>.bv-<step>` folders and a pointer file `<name>.bv-LAST`
that names the newest (`utils.save_checkpoint_ts` at 0127fb6). A tensor lies in
a directory named after its tree path with '~' for '/', as zarr version 2.
"""

# tensorstore annotates its functions in part.
# pyright: reportUnknownMemberType=false

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np

from siglip_jax.messages import reason
from siglip_jax.weights.bounds import check_claim, stored_bytes
from siglip_jax.weights.reader import BFLOAT16, FLOATS, Header, empty_aligned, select_parameters
from siglip_jax.weights.staging import staged
from siglip_jax.weights.zarr_chunks import check_chunks, read_header

_POINTER = "-LAST"


class FolderReader:
    """An open tensorstore checkpoint; a context manager (see `reader.Reader`).

    Args:
      path: a step folder, the common name before `-LAST`, the pointer file
        itself, or a folder that holds exactly one pointer.

    Raises:
      ValueError: if there is no such checkpoint, if the pointer leads nowhere,
        or the folder holds no parameters or a damaged one.
    """

    subtree = ""

    def __init__(self, path: str | Path) -> None:
        self._folder = find_step_folder(Path(path))
        self.path = str(self._folder)
        stored = {entry.name.replace("~", "/"): entry for entry in self._folder.iterdir()}
        # Anything else may lie in a folder; an array is what a zarr header makes one.
        stored = {n: e for n, e in stored.items() if n.startswith("params/") or _is_array(e)}
        members, self.ignored = select_parameters(stored)
        if not members:
            raise ValueError(
                f"{self.path} holds no parameters: expected folders params~img~..., "
                f"found {_listing(self._folder)}"
            )
        self._members = {name: stored[member] for name, member in members.items()}
        self.shapes = {name: self._header(member) for name, member in self._members.items()}
        try:
            claimed = sum(header.nbytes for header in self.shapes.values())
            check_claim(claimed, stored_bytes(self._folder))
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}; copy it again") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing stays open between reads."""

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`.

        Raises:
          ValueError: if a part of it is missing or damaged.
        """
        # Here and not above, so that listing a checkpoint does not pay for the import.
        import tensorstore

        member = self._members[name]
        array = empty_aligned(*self.shapes[name])
        try:
            check_chunks(member)
            # Without this a lost chunk would be read as zeros.
            spec = {**_spec(member), "fill_missing_data_reads": False}
            store = tensorstore.open(spec).result()
            tensorstore.array(array, copy=False).write(store).result()
        except Exception as error:  # tensorstore raises ValueError, OSError and others
            said = reason(error).split(" [", 1)[0]
            raise ValueError(
                f"{self.path}: {member.name} is damaged or incomplete ({said}); copy it again"
            ) from error
        return array

    def _header(self, member: Path) -> Header:
        try:
            zarray = read_header(member)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path}: {member.name} has no readable .zarray ({reason(error)}); "
                "copy it again"
            ) from error
        dtype = zarray["dtype"]
        return Header(tuple(zarray["shape"]), BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype))


def find_step_folder(path: Path) -> Path:
    """The folder of arrays that `path` leads to (see `FolderReader`).

    Raises:
      ValueError: if it leads to none.
    """
    if path.name.endswith(_POINTER):
        pointer = path
    elif (beside := Path(f"{path}{_POINTER}")).is_file():
        pointer = beside
    elif path.is_dir():
        if any(_is_array(entry) for entry in path.iterdir()):
            return path
        inside = sorted(path.glob(f"*{_POINTER}"))
        if not inside:
            raise ValueError(
                f"{path} is no big_vision checkpoint: expected a pointer checkpoint.bv-LAST or "
                f"folders params~img~..., found {_listing(path)}"
            )
        if len(inside) > 1:
            names = ", ".join(entry.name.removesuffix(_POINTER) for entry in inside)
            raise ValueError(f"{path} holds several checkpoints, name one of them: {names}")
        pointer = inside[0]
    else:
        raise ValueError(f"{path} does not exist")
    if not pointer.is_file():
        raise ValueError(f"{pointer} does not exist")
    step = pointer.read_text(errors="replace").strip()
    if not re.fullmatch(r"\d+(-tmp)?", step):
        raise ValueError(f"{pointer} is no pointer: expected a step like 000000123, got {step!r}")
    folder = pointer.with_name(f"{pointer.name.removesuffix(_POINTER)}-{step}")
    if not folder.is_dir():
        raise ValueError(f"{pointer} points to {folder.name}, which is not there")
    return folder


def write_folder(
    path: str | Path, items: Iterable[tuple[str, np.ndarray]], *, step: int = 0
) -> Path:
    """Writes a checkpoint that big_vision's `load_params` reads; one tensor at a time.

    Args:
      path: the common name, such as `checkpoint.bv`. The tensors go to
        `checkpoint.bv-<step>`, then `checkpoint.bv-LAST` is pointed there; both
        appear whole or not at all.
      items: names (those of `weights.layout`) and float arrays.
      step: the training step, at most nine digits.

    Returns:
      The step folder.

    Raises:
      ValueError: if that step is there already, for no tensors at all, a name
        given twice or with a '~', or a dtype that is no float.
    """
    import tensorstore

    path = Path(path)
    if not 0 <= step < 10**9:
        raise ValueError(f"cannot write {path}: step must have at most nine digits, got {step}")
    folder = path.with_name(f"{path.name}-{step:09d}")
    if folder.exists():
        raise ValueError(f"{folder} exists already: remove it or give another step")
    with staged(folder) as temporary:
        for name, array in items:
            member = temporary / f"params/{name}".replace("/", "~")
            if "~" in name or member.exists():
                what = "has a '~' in its name" if "~" in name else "is given twice"
                raise ValueError(f"cannot write {path}: {name} {what}")
            if array.dtype not in FLOATS:
                raise ValueError(f"cannot write {path}: {name} is {array.dtype}, not a float")
            store = tensorstore.open(
                _spec(member),
                create=True,
                dtype=tensorstore.dtype(array.dtype),
                shape=array.shape,
                # As big_vision stores an array that is on one device: one chunk.
                chunk_layout=tensorstore.ChunkLayout(chunk_shape=[max(n, 1) for n in array.shape]),
                codec=tensorstore.CodecSpec(
                    {"driver": "zarr", "compressor": {"id": "zstd", "level": 1}}
                ),
            ).result()
            # Nothing changes the array meanwhile, so that no copy of it is taken.
            store.write(array, can_reference_source_data_indefinitely=True).result()
        if not temporary.exists():
            raise ValueError(f"cannot write {path}: there are no tensors to write")
    with staged(path.with_name(path.name + _POINTER)) as pointer:
        pointer.write_text(f"{step:09d}")
    return folder


def _spec(member: Path) -> dict[str, Any]:
    return {"driver": "zarr", "kvstore": {"driver": "file", "path": str(member.resolve())}}


def _is_array(entry: Path) -> bool:
    return (entry / ".zarray").is_file()


def _listing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) + more) or "nothing"
