"""PyTorch's `.pt`, `.pth` and `.bin` files, read without PyTorch and without running them.

Such a file is a zip archive with a pickle that names the tensors and one member for
the bytes of each storage. A pickle may call any function. This reader lets it make
tensors, dictionaries and plain values, puts nothing in the place of settings that trainers
keep beside them, and refuses anything else.
"""

import collections
import math
import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import ml_dtypes
import numpy as np

from siglip_jax.weights.reader import Header, empty_aligned

from .wrappers import AVERAGES, WEIGHTS

_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# A dtype is pickled by its name in `torch`.
_DTYPE = re.compile(r"(b?float|u?int|complex|qu?int|bits)\d+(x\d+)?(_\w+)?|bool")
_CHUNK = 4 << 20


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(storage: _Storage, offset: int, size: Any, stride: Any, *rest: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: _Tensor, *rest: Any) -> _Tensor:
    return data


def _device(*name: Any) -> str:
    return ":".join(map(str, name))


class _Inert:
    """What stands for settings and metrics that trainers keep beside the weights: nothing."""

    def __new__(cls, *anything: Any, **more: Any) -> Self:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


_ALLOWED = {
    ("argparse", "Namespace"): _Inert,
    ("_codecs", "encode"): _Inert,  # how protocol 2 spells bytes, such as those of a scalar
    ("pathlib", "PosixPath"): _Inert,
    ("pathlib", "WindowsPath"): _Inert,
    ("numpy", "dtype"): _Inert,
    ("numpy.core.multiarray", "scalar"): _Inert,
    ("numpy._core.multiarray", "scalar"): _Inert,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch", "device"): _device,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _Refused(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "torch" and _DTYPE.fullmatch(name):
            return name  # data that a trainer keeps beside the weights
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise _Refused(str(pid))
        return _Storage(str(key), dtype, int(size))


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
        self._zip = _open_zip(Path(path))
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
            if order in names and self._zip.read(order) != b"little":
                raise ValueError(f"{path} was written on a big-endian machine, which is not read")
            tensors, self.keys, self.ignored = _weights(self.path, self._unpickle(pickles[0]))
            self._tensors = {name: self._check(name, t, names) for name, t in tensors.items()}
        except BaseException:
            self.close()
            raise
        self.shapes = {n: Header(t.shape, t.storage.dtype) for n, t in self._tensors.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._zip.close()

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`.

        Raises:
          ValueError: if the file is damaged there.
        """
        storage, offset, shape, stride = self._tensors[name]
        whole = empty_aligned((storage.size,), storage.dtype)
        into = memoryview(cast(Any, whole.view(np.uint8))) if whole.size else memoryview(b"")
        try:
            member = self._zip.open(f"{self._root}data/{storage.key}")
            with cast(zipfile.ZipExtFile, member) as file:
                for start in range(0, len(into), _CHUNK):
                    piece = into[start : start + _CHUNK]
                    if file.readinto(piece) != len(piece):
                        raise EOFError("it ends early")
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise ValueError(f"{self.path}: {name} is damaged ({error}); copy it again") from error
        strides = tuple(step * storage.dtype.itemsize for step in stride)
        view = np.lib.stride_tricks.as_strided(whole[offset:], shape, strides)
        return np.ascontiguousarray(view).reshape(shape)

    def _unpickle(self, member: str) -> Any:
        try:
            with self._zip.open(member) as file:
                return _Unpickler(file).load()
        except _Refused as error:
            raise ValueError(
                f"{self.path} holds code, not only weights: its pickle asks for {error}; "
                "refused. Save the model's state_dict() alone, best as safetensors"
            ) from error
        except Exception as error:  # A damaged pickle raises anything.
            raise ValueError(f"{self.path}: its list of tensors is damaged ({error})") from error

    def _check(self, name: str, tensor: _Tensor, members: list[str]) -> _Tensor:
        storage, offset, shape, stride = tensor
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        member = f"{self._root}data/{storage.key}"
        sound = (
            all(type(n) is int and n >= 0 for n in (offset, *shape, *stride))
            and (math.prod(shape) == 0 or last < storage.size)
            and member in members
            and self._zip.getinfo(member).file_size == storage.size * storage.dtype.itemsize
        )
        if not sound:
            raise ValueError(f"{self.path}: {name} is damaged or incomplete; copy the file again")
        return tensor


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except zipfile.BadZipFile as error:
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


def _weights(path: str, loaded: Any) -> tuple[dict[str, _Tensor], tuple[str, ...], tuple[str, ...]]:
    """The tensors, the keys of the dictionaries they are in, and the entries beside these."""
    keys: tuple[str, ...] = ()
    beside: list[str] = []
    entries = _mapping(loaded) or {}
    while key := next((k for k in (*AVERAGES, *WEIGHTS) if _mapping(entries.get(k))), None):
        beside += [".".join((*keys, str(other))) for other in entries if other != key]
        keys = (*keys, key)
        loaded = entries[key]
        entries = _mapping(loaded) or {}
    if not entries:
        raise ValueError(f"{path} holds {type(loaded).__name__}, not a dictionary of tensors")
    wrong = [str(name) for name, value in entries.items() if not isinstance(value, _Tensor)]
    if wrong:
        raise ValueError(
            f"{path} is not a dictionary of tensors: {', '.join(wrong[:3])} is none; "
            f"expected weights, or {', '.join(WEIGHTS)} with weights"
        )
    tensors = {str(name): tensor for name, tensor in entries.items()}
    return tensors, keys, tuple(sorted(beside))


def _mapping(value: Any) -> Mapping[Any, Any] | None:
    return cast(Mapping[Any, Any], value) if isinstance(value, Mapping) else None
