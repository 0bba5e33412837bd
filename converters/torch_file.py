"""PyTorch's `.pt`, `.pth` and `.bin` files, read without PyTorch and without running them.

Such a file is a zip archive with a pickle that names the tensors and one member for
the bytes of each storage. A pickle may call any function; `torch_pickle` reads it without
being able to.
"""

import contextlib
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import numpy as np

from siglip_jax.messages import reason
from siglip_jax.weights.bounds import DIMENSIONS, check_claim, content_offset, is_shape, open_zip
from siglip_jax.weights.reader import Header, empty_aligned

from .torch_pickle import MOST_BYTES, Refused, Storage, Tensor, load
from .wrappers import AVERAGES, WEIGHTS

_CHUNK = 4 << 20
_ORDER = 16  # bytes of the member that names the byte order
_NESTED = 8  # dictionaries in each other that may be around the weights
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


class TorchReader:
    """An open PyTorch file (see `weights.reader.Reader`).

    Either a dictionary of tensors or a training checkpoint that has one under a key of
    `wrappers.AVERAGES` or `wrappers.WEIGHTS`, the first of them that there is; `keys` says
    which, and other entries are in `ignored`.

    Raises:
      ValueError: if the file is missing, damaged, of the format before PyTorch 1.6,
        a TorchScript program, holds no tensors, or its pickle calls for anything but
        tensors and plain values.
    """

    subtree = ""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.files = (Path(path),)
        self._file, self._zip = _open_zip(Path(path))
        self._whole: set[str] = set()  # storages whose checksum was compared
        try:
            names = self._zip.namelist()
            pickles = [name for name in names if name.endswith("/data.pkl")]
            if len(pickles) != 1 or any(name.endswith("/constants.pkl") for name in names):
                what = "a TorchScript program" if len(pickles) == 1 else "another zip archive"
                raise ValueError(
                    f"{path} is {what}, not the weights of a model; "
                    "save its state_dict() with torch.save"
                )
            self._root = pickles[0].removesuffix("data.pkl")
            order = f"{self._root}byteorder"
            if order in names and self._small(order, _ORDER) != b"little":
                raise ValueError(f"{path} was written on a big-endian machine, which is not read")
            tensors, self.keys, self.ignored = _weights(self.path, self._unpickle(pickles[0]))
            members = set(names)
            self._tensors = {name: self._check(name, t, members) for name, t in tensors.items()}
            self._check_shared()
        except BaseException:
            self.close()
            raise
        self.shapes = {n: Header(t.shape, t.storage.dtype) for n, t in self._tensors.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        # The archive has nothing of its own to close: it reads a file that it was given.
        self._file.close()

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`.

        Raises:
          ValueError: if the file is damaged there.
        """
        storage, offset, shape, stride = self._tensors[name]
        # Of a storage that others share, no more than this tensor lies in.
        count = _reach(shape, stride)
        whole = empty_aligned((count,), storage.dtype)
        into = memoryview(cast(Any, whole.view(np.uint8))) if whole.size else memoryview(b"")
        before, info = offset * storage.dtype.itemsize, self._member(storage)
        try:
            if storage.key in self._whole and info.compress_type == zipfile.ZIP_STORED:
                self._file.seek(content_offset(self._file, info) + before)
                opened = contextlib.nullcontext(self._file)
            else:
                opened = self._open(info.filename)
                _pass_over(opened, before)
            with opened as file:
                for start in range(0, len(into), _CHUNK):
                    piece = into[start : start + _CHUNK]
                    if file.readinto(piece) != len(piece):
                        raise EOFError("it ends early")
                if storage.key not in self._whole:
                    while file.read(_CHUNK):  # at its end, its checksum is compared
                        pass
                    self._whole.add(storage.key)
        except _DAMAGE as error:
            said = reason(error)
            raise ValueError(f"{self.path}: {name} is damaged ({said}); copy it again") from error
        strides = tuple(step * storage.dtype.itemsize for step in stride)
        view = np.lib.stride_tricks.as_strided(whole, shape, strides)
        return np.ascontiguousarray(view).reshape(shape)

    def _open(self, member: str) -> zipfile.ZipExtFile:
        return cast(zipfile.ZipExtFile, self._zip.open(member))

    def _small(self, member: str, most: int) -> bytes:
        """A member, up to one byte more than `most`."""
        try:
            with self._open(member) as file:
                return file.read(most + 1)
        except _DAMAGE as error:
            raise ValueError(
                f"{self.path}: {member} is damaged ({reason(error)}); copy it again"
            ) from error

    def _unpickle(self, member: str) -> Any:
        data = self._small(member, MOST_BYTES)
        try:
            return load(data)
        except Refused as error:
            raise ValueError(
                f"{self.path} holds code, not only weights: its pickle asks for {error}; "
                "refused. Save the model's state_dict() alone, best as safetensors"
            ) from error
        except Exception as error:  # A damaged pickle raises anything.
            raise ValueError(
                f"{self.path}: its list of tensors is damaged ({reason(error)})"
            ) from error

    def _member(self, storage: Storage) -> zipfile.ZipInfo:
        return self._zip.getinfo(f"{self._root}data/{storage.key}")

    def _check_shared(self) -> None:
        """Refuses to unpack one compressed storage for any number of tensors that lie in it."""
        infos = [self._member(tensor.storage) for tensor in self._tensors.values()]
        packed = [info.file_size for info in infos if info.compress_type != zipfile.ZIP_STORED]
        try:
            check_claim(sum(packed), os.fstat(self._file.fileno()).st_size)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def _check(self, name: str, tensor: Tensor, members: set[str]) -> Tensor:
        storage, offset, shape, stride = tensor
        member = f"{self._root}data/{storage.key}"
        sound = (
            is_shape([offset])
            and is_shape([storage.size])
            and is_shape(shape)
            and all(is_shape([step]) for step in stride)
            and len(stride) <= DIMENSIONS
            and len(shape) == len(stride)
            # One whose strides repeat numbers may say that it has any number of them.
            and math.prod(shape) <= storage.size
            and (math.prod(shape) == 0 or offset + _reach(shape, stride) <= storage.size)
            and member in members
            and self._zip.getinfo(member).file_size == storage.size * storage.dtype.itemsize
        )
        if not sound:
            raise ValueError(f"{self.path}: {name} is damaged or incomplete; copy the file again")
        return tensor


def _reach(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """How many numbers of its storage lie between the first and the last of a tensor."""
    if math.prod(shape) == 0:
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))


def _pass_over(file: zipfile.ZipExtFile, count: int) -> None:
    while count > 0:
        piece = len(file.read(min(count, _CHUNK)))
        if not piece:
            raise EOFError("it ends early")
        count -= piece


def _open_zip(path: Path) -> tuple[Any, zipfile.ZipFile]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return file, open_zip(file)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        file.close()
        if not isinstance(error, zipfile.BadZipFile | OSError):
            raise ValueError(f"{path}: {reason(error)}; copy it again") from error
        with path.open("rb") as file:
            start = file.read(32)
        if start[:1] == b"\x80" and start[2:3] in (b"\x8a", b"}", b"c"):
            raise ValueError(
                f"{path} is a bare pickle, as PyTorch wrote before 1.6; load it there and save "
                "its state_dict() again with torch.save"
            ) from error
        if start.startswith(b"PK"):
            raise ValueError(f"{path} is cut short or damaged; copy it again") from error
        raise ValueError(f"{path} is not a PyTorch file: it begins with {start[:16]!r}") from error


def _weights(path: str, loaded: Any) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """The tensors, the keys of the dictionaries they are in, and the entries beside these."""
    keys: tuple[str, ...] = ()
    beside: list[str] = []
    entries = _mapping(loaded) or {}
    while key := next((k for k in (*AVERAGES, *WEIGHTS) if _mapping(entries.get(k))), None):
        if len(keys) == _NESTED:
            raise ValueError(f"{path} is not a dictionary of tensors: {'.'.join(keys)} goes on")
        beside += [".".join((*keys, str(other))) for other in entries if other != key]
        keys = (*keys, key)
        loaded = entries[key]
        entries = _mapping(loaded) or {}
    if not entries:
        raise ValueError(f"{path} holds {type(loaded).__name__}, not a dictionary of tensors")
    wrong = [str(name) for name, value in entries.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ValueError(
            f"{path} is not a dictionary of tensors: {', '.join(wrong[:3])} is none; "
            f"expected weights, or {', '.join(WEIGHTS)} with weights"
        )
    tensors = {str(name): tensor for name, tensor in entries.items()}
    return tensors, keys, tuple(sorted(beside))


def _mapping(value: Any) -> Mapping[Any, Any] | None:
    return cast(Mapping[Any, Any], value) if isinstance(value, Mapping) else None
