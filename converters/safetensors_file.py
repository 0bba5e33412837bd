"""safetensors, mapped or read, and written, one tensor at a time.

A file is eight bytes of header length, a JSON header with the dtype, shape and
place of each tensor, and the tensors. The library `safetensors` gives numpy no
bfloat16, writes only what is in memory at once, and says little about a bad file.

A tensor that begins at a multiple of 64 bytes is not read but mapped: jax on a CPU takes
such memory as it is, so that loading touches nothing, several processes share one copy,
and weights that are never used are never read. Files written here are laid out for it.
Like all mapped files they must not be changed in place while they are in use: replace
them, as everything here does, by renaming.
"""

import json
import mmap
import os
import reprlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import ml_dtypes
import numpy as np

from siglip_jax.json_text import parsed
from siglip_jax.weights.bounds import is_shape
from siglip_jax.weights.reader import Header, empty_aligned

SHARD_BYTES = 5_000_000_000  # transformers' default, in decimal gigabytes

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# A hundred thousand tensors. safetensors itself takes six times that, and a gigabyte of memory.
_HEADER_LIMIT = 16 << 20
_ALIGNED = 64  # what XLA asks of memory that it takes over


class SafetensorsReader:
    """One open safetensors file (see `weights.reader.Reader`).

    Raises:
      ValueError: if it is missing, cut short, damaged or something else.
    """

    subtree = ""
    ignored: tuple[str, ...] = ()

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.files = (Path(path),)
        self.shapes: dict[str, Header] = {}
        self._offsets: dict[str, int] = {}
        self._mapped: np.ndarray | None = None
        try:
            self._file = Path(path).open("rb")  # noqa: SIM115  (close() closes it)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        try:
            self._read_header(Path(path).stat().st_size)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        # The mapping goes when the last tensor that lies in it does.
        self._mapped = None

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`; where it can be, a view of the file that outlives this reader.

        Raises:
          ValueError: if the file has shrunk since it was opened.
        """
        header, start = self.shapes[name], self._offsets[name]
        if start + header.nbytes > os.fstat(self._file.fileno()).st_size:
            raise ValueError(f"{self.path} ends in the middle of {name}; fetch it again")
        if start % _ALIGNED == 0 and header.nbytes:
            return self._view(start, header)
        array = empty_aligned(*header)
        if array.size:
            self._file.seek(start)
            into = memoryview(cast(Any, array.reshape(-1).view(np.uint8)))
            if self._file.readinto(into) != len(into):
                raise ValueError(f"{self.path} ends in the middle of {name}; fetch it again")
        return array

    def _view(self, start: int, header: Header) -> np.ndarray:
        if self._mapped is None:
            # A private copy is made of a page that someone writes to; the file stays as it is.
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
            self._mapped = np.frombuffer(mapped, np.uint8)
        piece = self._mapped[start : start + header.nbytes]
        return piece.view(header.dtype).reshape(header.shape)

    def _read_header(self, size: int) -> None:
        length = _header_length(self._file.read(8), size)
        try:
            header = parsed(self._file.read(length)) if length is not None else None
        except ValueError as error:
            raise ValueError(f"{self.path}: its header is damaged; fetch it again") from error
        if length is None or not isinstance(header, dict):
            raise ValueError(_why_not_safetensors(Path(self.path)))
        entries = cast(dict[str, Any], header)
        entries.pop("__metadata__", None)
        data, end = 8 + length, 0
        pieces: list[tuple[int, int, str]] = []
        for name, entry in entries.items():
            try:
                if not (is_shape(entry["shape"]) and _offsets(entry["data_offsets"])):
                    raise ValueError
                found = Header(tuple(entry["shape"]), _DTYPES[entry["dtype"]])
                start, stop = entry["data_offsets"]
                sound = stop - start == found.nbytes
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{self.path}: the header of {name} cannot be understood: {reprlib.repr(entry)}"
                ) from error
            if not sound:
                raise ValueError(f"{self.path}: {name} is damaged; fetch the file again")
            self.shapes[name] = found
            self._offsets[name] = data + start
            pieces.append((start, stop, name))
            end = max(end, stop)
        if data + end != size:
            what = "cut short" if data + end > size else "longer than its header says"
            raise ValueError(
                f"{self.path} is {what}: {size:,} bytes, not {data + end:,}; fetch it again"
            )
        # The format has every byte belong to one tensor.
        reached, before = 0, "the header"
        for start, stop, name in sorted(pieces):
            if start != reached:
                how = "overlap" if start < reached else "leave a gap"
                raise ValueError(f"{self.path}: {before} and {name} {how}; fetch the file again")
            reached, before = stop, name


def _offsets(pair: Any) -> bool:
    return len(pair) == 2 and all(is_shape([place]) for place in pair)


def _header_length(start: bytes, size: int) -> int | None:
    if len(start) < 8:
        return None
    (length,) = struct.unpack("<Q", start)
    return length if 2 <= length <= min(size - 8, _HEADER_LIMIT) else None


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors do."""
    with path.open("rb") as file:
        return _header_length(file.read(8), path.stat().st_size) is not None and (
            file.read(1) == b"{"
        )


def _why_not_safetensors(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return f"{path} is empty; fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a git-lfs pointer, not the file itself; run `git lfs pull`"
    claimed = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and _HEADER_LIMIT < claimed <= path.stat().st_size:
        return f"{path}: its header has {claimed:,} bytes, more than any model's"
    if start[8:10] == b'{"':
        return f"{path} is cut short: not even its header is whole; fetch it again"
    return f"{path} is not a safetensors file: it begins with {start[:16]!r}"


class SafetensorsWriter:
    """Writes tensors, whose shapes and dtypes are known, in any order; a context manager.

    Args:
      path: the file, such as `model.safetensors`. If the tensors are more than
        `shard_bytes`, files `model-00001-of-00002.safetensors`, ... and
        `model.safetensors.index.json` are written in its place.
      headers: of all tensors.

    Leaving the `with` block checks that every tensor was written. Nothing is renamed
    here: write into a folder that is (`weights.staging`).
    """

    def __init__(
        self, path: Path, headers: Mapping[str, Header], *, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self._headers = dict(headers)
        self._left = set(self._headers)
        self._places: dict[str, tuple[BinaryIO, int]] = {}
        shards = _shards(self._headers, shard_bytes)
        if len(shards) == 1:
            self._start(path, shards[0])
            return
        names: dict[str, str] = {}
        for k, shard in enumerate(shards):
            part = path.with_name(f"{path.stem}-{k + 1:05d}-of-{len(shards):05d}{path.suffix}")
            self._start(part, shard)
            names |= dict.fromkeys(shard, part.name)
        total = sum(header.nbytes for header in self._headers.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}
        path.with_name(f"{path.name}.index.json").write_text(json.dumps(index, indent=2) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        for file in {file for file, _ in self._places.values()}:
            file.close()
        if kind is None and self._left:
            raise ValueError(f"not written: {', '.join(sorted(self._left))}")

    def write(self, name: str, array: np.ndarray) -> None:
        """Writes one tensor, once."""
        header = self._headers[name]
        if (array.shape, array.dtype) != header or name not in self._left:
            raise ValueError(f"{name}: expected {header} once, got {array.shape} {array.dtype}")
        self._left.remove(name)
        if array.size:
            file, offset = self._places[name]
            file.seek(offset)
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            file.write(memoryview(cast(Any, raw)))

    def _start(self, path: Path, shard: dict[str, Header]) -> None:
        # Whole multiples of 64 bytes first, so that each of them can be mapped; then, as
        # the library does, wider dtypes first, so that every tensor is aligned to its own.
        def place(name: str) -> tuple[bool, int, str]:
            header = shard[name]
            return header.nbytes % _ALIGNED != 0, -header.dtype.itemsize, name

        names = sorted(shard, key=place)
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name in names:
            shape, dtype = shard[name]
            end = offset + shard[name].nbytes
            header[name] = {
                "dtype": _NAMES[dtype],
                "shape": list(shape),
                "data_offsets": [offset, end],
            }
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % _ALIGNED)
        file = path.open("wb")
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
        start = 8 + len(text)
        for name in names:
            self._places[name] = (file, start + header[name]["data_offsets"][0])


def _shards(headers: Mapping[str, Header], limit: int) -> list[dict[str, Header]]:
    shards: list[dict[str, Header]] = [{}]
    size = 0
    for name, header in headers.items():
        if shards[-1] and size + header.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = header
        size += header.nbytes
    return shards
